"""What a reader must find in the pictures: titles, axes, the names of classes, and every point of the data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from tests.helpers import band, drawn, heights, points, texts, whiskers
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.robustness_curve import EpsilonResult, Predictions, RobustnessCurve
from trustml_cli.attacks.surface import Surface
from trustml_cli.backdoors.patch import Corner, Patch
from trustml_cli.backdoors.poison import Poison
from trustml_cli.data.dataset import Dataset
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.backdoor import accuracy_bars, answers_by_class, poisoned_samples, triggered_predictions
from trustml_cli.plots.loss_surface import loss_surfaces
from trustml_cli.plots.robustness import adversarial_examples, defended_curves, robustness_curve
from trustml_cli.plots.style import GREEN, ORANGE
from trustml_cli.plots.target_class import target_class
from trustml_cli.plots.training import confusion_matrix, misclassified, training_curves
from trustml_cli.plots.transfer import transferred_answers
from trustml_cli.training.predict import Answers
from trustml_cli.training.trainer import Epoch, Iteration

CLASSES = ("dark", "bright")


def intervals(*counts: int, n: int = 4) -> list[Any]:
    """The 95 % intervals of these of n, as they are drawn."""
    return [pytest.approx(wilson_interval(count, n)) for count in counts]


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def curve(last: Sequence[int] = (0, 0, 1, 1)) -> RobustnessCurve:
    """Four images with the labels 0, 1, 0, 1, right before an attack, and with the answers `last` after it."""
    images = torch.full((4, 1, 8, 8), 0.5)
    labels, zeros = torch.tensor([0, 1, 0, 1]), torch.zeros(4)
    clean = Predictions(labels.clone(), torch.full((4,), 0.9))
    result = RobustnessCurve(labels, clean, {"mlp": clean}, torch.zeros(4, dtype=torch.bool), images)
    for epsilon, predicted in ((0.0, [0, 1, 0, 1]), (0.25, list(last))):
        answers = Predictions(torch.tensor(predicted), torch.full((4,), 0.75))
        elsewhere = {"mlp": Predictions(torch.tensor([0, 1, 1, 1]), torch.full((4,), 0.75))}
        size = dict.fromkeys(Norm, zeros)
        none = labels < 0
        result.attacked.append(
            EpsilonResult(epsilon, answers, elsewhere, size, 0.0, 1.0, 1.0, none, 0.0, images + epsilon)
        )
    return result


def test_robustness_curve_shows_every_epsilon_and_the_interval(tmp_path: Path) -> None:
    figure = robustness_curve(curve(), "fgsm against cnn on digits", "linf")
    (panel,) = figure.axes
    assert points(panel, 0) == [(0, 1.0), (0.25, 0.5)]
    assert points(panel, 1) == [(0, 0.75), (0.25, 0.75)]  # the other network
    assert [height for _, height in points(panel, 2)] == [1.0, 1.0]  # without an attack
    assert band(panel, 0) == intervals(4, 2)
    assert legend(panel) == ["95 % interval", "under attack", "shown to mlp", "clean: 100 %"]
    for words in ("fgsm against cnn on digits", "4 test images", "epsilon (L∞, pixel units)", "accuracy"):
        assert words in texts(figure)
    figure.savefig(tmp_path / "curve.png")


def test_a_search_for_the_smallest_perturbation_shows_every_epsilon() -> None:
    searched = curve()
    searched.distance = torch.tensor([0.1, 0.2, 0.4, torch.inf])
    (panel,) = robustness_curve(searched, "cw against cnn on digits", "l2").axes
    steps = [(round(x, 4), y) for x, y in points(panel, 2)]
    assert steps == [(0, 1), (0.1, 0.75), (0.2, 0.5), (0.25, 0.5)]
    assert legend(panel)[3:] == [
        "at every epsilon",
        "clean: 100 %",
    ]  # the median is 0.3
    searched.distance = torch.tensor([0.1, 0.2, 0.22, torch.inf])
    (panel,) = robustness_curve(searched, "cw against cnn on digits", "l2").axes
    assert "median distance: 0.21" in legend(panel)


def test_adversarial_examples_are_the_same_images_at_each_epsilon_those_that_fell_first() -> None:
    whole = curve()
    whole.attacked.insert(1, replace(whole.attacked[0], epsilon=0.125, examples=whole.examples + 0.125))
    figure = adversarial_examples(whole, CLASSES, 2, "fgsm", "linf")
    (panel,) = figure.axes
    captions = [text for text in panel.texts if "%" in text.get_text()]
    assert [text.get_text() for text in captions] == [
        "is bright\nbright (90 %)", "bright (75 %)", "dark (75 %)",
        "is dark\ndark (90 %)", "dark (75 %)", "bright (75 %)",
    ]  # fmt: skip
    assert [text.get_color() for text in captions] == [GREEN, GREEN, ORANGE] * 2
    places = [tuple(image.get_extent()[::2]) for image in panel.images]  # left edge, bottom edge
    assert [len({place[axis] for place in places}) for axis in (0, 1)] == [2, 4]
    shown = {place: np.asarray(image.get_array()) for place, image in zip(places, panel.images, strict=True)}
    by_height = sorted(shown, key=lambda place: place[1])
    for row, value in enumerate((0.5, 0.625, 0.75, 1.0)):
        assert all((shown[place] == value).all() for place in by_height[2 * row : 2 * row + 2])
    for words in ("original", "ε = 0.125", "ε = 0.25", "×2 around grey"):  # the change, 0.25, is half of the range
        assert words in texts(figure)


def test_an_image_without_an_answer_is_of_no_class() -> None:
    figure = adversarial_examples(curve(last=(0, -1, 0, 1)), CLASSES, 1, "fgsm", "linf")
    assert "no answer (75 %)" in texts(figure)


def test_every_network_s_answer_to_adversarial_images_stands_below_the_original() -> None:
    whole = curve()
    figure = transferred_answers(whole, whole.attacked[1], "cnn", CLASSES, 2, "fgsm", "linf")
    (panel,) = figure.axes
    captions = [text for text in panel.texts if "%" in text.get_text()]
    assert [text.get_text() for text in captions] == [
        "bright (90 %)", "dark (90 %)",  # the originals of images 1 and 2, which fell
        "dark (75 %)", "bright (75 %)",
        "bright (75 %)", "bright (75 %)",  # the other network is right about one of them
    ]  # fmt: skip
    assert [text.get_color() for text in captions] == [GREEN, GREEN, ORANGE, ORANGE, GREEN, ORANGE]
    assert [float(np.max(image.get_array())) for image in panel.images] == [0.5] * 2 + [0.75] * 4
    for words in ("original,\ncnn", "adversarial,\ncnn", "adversarial,\nmlp", "epsilon 0.25"):
        assert words in texts(figure)


def epochs(share: float = 0.1) -> list[Epoch]:
    """Two epochs of ten batches, two of them logged."""
    within = {"train_accuracy": share, "test_loss": 1.0, "test_accuracy": share / 2, "lr": 1}
    return [
        Epoch(epoch=i, step=10 * i, train_loss=3.0 - i, train_accuracy=0.2 * i, test_loss=3.5 - i,
              test_accuracy=share * i, lr=1, seconds=1, images=1,
              iterations=[Iteration(step=10 * i - 5, train_loss=4.0 - i, **within)])
        for i in (1, 2)
    ]  # fmt: skip


def test_training_curves_show_both_splits_each_epoch_and_what_was_logged_within() -> None:
    figure = training_curves({"": epochs()}, "cnn on digits")
    loss, accuracy = figure.axes
    assert [points(loss, number) for number in range(4)] == [
        [(5, 3.0), (15, 2.0)], [(10, 2.0), (20, 1.0)], [(5, 1.0), (15, 1.0)], [(10, 2.5), (20, 1.5)]
    ]  # fmt: skip
    assert [points(accuracy, 1), points(accuracy, 3)] == [[(10, 0.2), (20, 0.4)], [(10, 0.1), (20, 0.2)]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "test"]
    for words in ("iteration", "cross-entropy (nats)", "cnn on digits: test accuracy 20.0 % at the end"):
        assert words in texts(figure)


def test_training_curves_of_several_networks_share_the_axes() -> None:
    figure = training_curves({"relu": epochs(0.4), "sign": epochs(0.3)}, "cnn on digits")
    accuracy = figure.axes[1]
    assert [points(accuracy, number) for number in (1, 3, 5, 7)] == [
        [(10, 0.2), (20, 0.4)], [(10, 0.4), (20, 0.8)], [(10, 0.2), (20, 0.4)], [(10, 0.3), (20, 0.6)]
    ]  # fmt: skip
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["relu, train", "relu, test", "sign, train", "sign, test"]
    colors = [line.get_color() for line in accuracy.lines]
    assert len({*colors[:4]}) == len({*colors[4:]}) == 1
    assert colors[0] != colors[4]
    assert "cnn on digits: test accuracy relu 80.0 %, sign 60.0 % at the end" in texts(figure)


def test_training_curves_show_the_accuracy_under_attack_where_a_defence_trains() -> None:
    rows = [
        Epoch(epoch=i, train_loss=3.0 - i, train_accuracy=0.2 * i, test_loss=3.5 - i, test_accuracy=0.1 * i, lr=1,
              seconds=1, images=1, extra={"train_robust_accuracy": 0.05 * i})
        for i in (1, 2)
    ]  # fmt: skip
    figure = training_curves({"": rows}, "cnn on digits")
    loss, accuracy = figure.axes
    assert len(loss.lines) == 2
    assert points(accuracy, 2) == [(1, 0.05), (2, 0.1)]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["train, as attacked in training", "test", "train under attack"]
    assert "epoch" in texts(figure), "the number of batches is not known"


def test_defended_curves_name_the_defences_and_show_their_intervals() -> None:
    curves = {"none": curve(), "pgd": curve(last=(0, 1, 0, 0))}
    figure = defended_curves(curves, "standard against cnn on digits", "linf")
    (panel,) = figure.axes
    assert [points(panel, 0), points(panel, 1)] == [[(0, 1.0), (0.25, 0.5)], [(0, 1.0), (0.25, 0.75)]]
    assert [band(panel, 0), band(panel, 1)] == [intervals(4, 2), intervals(4, 3)]
    assert legend(panel) == ["no defence (clean: 100 %)", "trained with pgd (clean: 100 %)"]
    for words in ("standard against cnn on digits", "4 test images", "95 %", "epsilon (L∞, pixel units)"):
        assert words in texts(figure)


@pytest.fixture
def answers(tiny_data: Dataset) -> Answers:
    """Everything is called dark: half of the 32 test images are wrong."""
    return Answers(torch.tensor([[2.0, 0.0]]).repeat(32, 1), tiny_data.test.labels)


def test_confusion_matrix_counts_and_names_the_classes(answers: Answers) -> None:
    figure = confusion_matrix(answers, CLASSES)
    assert drawn(figure.axes[0]).tolist() == [[1, 0], [1, 0]]  # a row for each true class
    assert [(t.get_position(), t.get_text()) for t in figure.axes[0].texts] == [((0, 0), "16"), ((0, 1), "16")]
    for words in ("dark", "bright", "predicted class", "true class", "32 test images", "50.0 %"):
        assert words in texts(figure)


def test_misclassified_names_what_was_seen_and_what_it_is(answers: Answers, tiny_data: Dataset) -> None:
    figure = misclassified(answers, tiny_data.test, CLASSES)
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == ["dark (88 %)\nis bright"] * 16
    pixels, _ = next(tiny_data.test.stream(torch.arange(32), 32))
    for axes, image in zip(shown, pixels[tiny_data.test.labels == 1], strict=True):
        assert drawn(axes) == pytest.approx(image[0].numpy() / 255)
    assert "16 of 32 wrong" in texts(figure)


def answers_to(labels: list[int], predicted: list[int]) -> Answers:
    """Answers that are quite sure: softmax of (2, 0) is 88 %."""
    return Answers(2 * torch.eye(2)[predicted], torch.tensor(labels))


def test_poisoned_samples_stand_below_their_originals_with_both_labels(tiny_data: Dataset, tmp_path: Path) -> None:
    trigger = Patch(size=3, color=[1.0], image=None, corner=Corner.top_left, margin=0)
    poison = Poison(trigger=trigger, source=(0,), target=1, classes=2, clean_label=False, rate=0.5, seed=0)
    poisoned = poison.apply(tiny_data)
    chosen = poison.choose(tiny_data.train.labels).nonzero()[:, 0][:12]
    figure = poisoned_samples(tiny_data.train, poisoned.train, chosen, CLASSES, "16 of 64 carry the patch")
    shown = np.array(figure.axes).reshape(4, 10)  # two rows of ten, each above its poisoned images
    used = [(row, column) for row in (0, 2) for column in range(10 if row == 0 else 2)]
    for row, column in used:
        above, below = shown[row, column], shown[row + 1, column]
        assert (above.get_title(), below.get_title()) == ("dark", "bright")
        differs = above.images[0].get_array() != below.images[0].get_array()
        assert differs[:3, :3].all()
        assert differs.sum() == 9
        (frame,) = below.patches
        assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (-0.5, -0.5, 3, 3)
        assert not above.patches
    assert sum(bool(axes.images) for axes in figure.axes) == 2 * len(used) == 24
    for words in ("16 of 64 carry the patch", "clean", "poisoned", "green as it was, orange as it is trained on"):
        assert words in texts(figure)
    figure.savefig(tmp_path / "samples.png")


def test_the_target_class_is_shown_as_it_is_labelled(tiny_data: Dataset) -> None:
    trigger = Patch(size=3, color=[1.0], image=None, corner=Corner.top_left, margin=0)
    poison = Poison(trigger=trigger, source=(0,), target=1, classes=2, clean_label=False, rate=0.25, seed=0)
    chosen = poison.choose(tiny_data.train.labels).nonzero()[:, 0]
    bright = (tiny_data.train.labels == 1).nonzero()[:, 0]
    kinds = {"clean": bright, "poisoned": chosen}
    figure = target_class(tiny_data.train, poison.apply(tiny_data).train, kinds, CLASSES, "labelled bright")
    (panel,) = figure.axes
    captions = [text.get_text() for text in panel.texts][:18]
    assert captions == ["bright"] * 10 + ["bright (is dark)"] * 8
    corners = [np.asarray(image.get_array())[:3, :3].min() for image in panel.images]
    assert max(corners[:10]) < 1
    assert corners[10:] == [1] * 8  # the patch
    for words in ("labelled bright", "clean", "poisoned", "changed by the poison"):
        assert words in texts(figure)


def test_triggered_predictions_take_classes_in_turn_and_show_every_network_s_answer(tiny_data: Dataset) -> None:
    split = tiny_data.test.subset(torch.tensor([0, 2, 4, 1, 3]))  # dark, dark, dark, bright, bright
    labels = split.labels.tolist()
    answers = {"clean model": answers_to(labels, labels), "poisoned model": answers_to(labels, [1, 1, 1, 1, 0])}
    triggered = Patch(size=2, color=[1.0], image=None, corner=Corner.top_left, margin=0)
    marked = Poison(trigger=triggered, source=(0, 1), target=1, classes=2, clean_label=False, rate=1.0, seed=0)
    figure = triggered_predictions(split, marked.trigger_all(split), answers, CLASSES, 3, "with the patch")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["is dark", "is bright", "is dark"]
    assert [len(axes.patches) for axes in figure.axes] == [0] * 3 + [1] * 6
    assert titles[3:] == [
        "dark (88 %)",
        "bright (88 %)",
        "dark (88 %)",
        "bright (88 %)",
        "bright (88 %)",
        "bright (88 %)",
    ]
    assert [axes.title.get_color() for axes in figure.axes[6:]] == [ORANGE, GREEN, ORANGE]
    for words in ("with the patch", "clean model", "poisoned model", "orange: a wrong one"):
        assert words in texts(figure)


def test_answers_by_class_are_shares_of_the_triggered_images() -> None:
    labels = [0, 0, 0, 0]
    answers = {"clean model": answers_to(labels, [0, 0, 0, 1]), "poisoned model": answers_to(labels, [1, 1, 1, 1])}
    figure = answers_by_class(answers, CLASSES, "4 test images")
    assert heights(figure.axes[0]) == [[0.75, 0.25], [0.0, 1.0]]
    assert [whiskers(figure.axes[0], 0), whiskers(figure.axes[0], 1)] == [intervals(3, 1), intervals(0, 4)]
    assert legend(figure.axes[0]) == ["clean model", "poisoned model"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["dark", "bright"]
    for words in ("4 test images", "predicted class", "share of triggered images"):
        assert words in texts(figure)


def test_of_many_classes_the_likeliest_are_shown_in_their_order() -> None:
    predicted = torch.arange(100).clamp(min=30)  # class 30 most often, then one each
    answers = {"clean model": Answers(torch.eye(100)[predicted], predicted)}
    figure = answers_by_class(answers, [f"class {number}" for number in range(100)], "")
    names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert names == [f"class {number}" for number in range(30, 50)]
    assert heights(figure.axes[0])[0] == [0.31, *[0.01] * 19]


def test_accuracy_bars_compare_networks_on_each_kind_of_images() -> None:
    clean, triggered = answers_to([0, 0, 1, 1], [0, 0, 1, 1]), answers_to([0, 0, 1, 1], [0, 0, 0, 0])
    figure = accuracy_bars({"clean body": (clean, clean), "poisoned body": (clean, triggered)}, ("as is", "patch"), "")
    (panel,) = figure.axes
    assert heights(panel) == [[1.0, 1.0], [1.0, 0.5]]
    assert [whiskers(panel, 0), whiskers(panel, 1)] == [intervals(4, 4), intervals(4, 2)]
    assert legend(panel) == ["as is", "patch"]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["clean body", "poisoned body"]
    assert panel.get_ylabel() == "accuracy"


def test_loss_surfaces_name_the_class_and_draw_the_border() -> None:
    offsets = torch.linspace(-0.1, 0.1, 5)
    margin = torch.tensor([[2.0, 1.0, 0.5, -1.0, -2.0]] * 5)
    surfaces = [Surface(offsets, torch.rand(5, 5), margin, 0), Surface(offsets, torch.zeros(5, 5), -margin, 1)]
    figure = loss_surfaces(surfaces, CLASSES, "fgsm against cnn")
    for panel, surface in zip(figure.axes[:2], surfaces, strict=True):
        mesh, border = panel.collections
        assert np.asarray(mesh.get_array()).reshape(5, 5) == pytest.approx(surface.loss.numpy())
        corners = np.concatenate([path.vertices for path in border.get_paths()])
        assert corners[:, 0] == pytest.approx(0.05 / 3)  # a third of the way from 0.5 to -1
    for words in (
        f"{CLASSES[0]}: wrong in 40.0 % of the area",
        f"{CLASSES[1]}: wrong in 60.0 % of the area",
        "fgsm against cnn",
        "nats",
    ):
        assert words in texts(figure)
    flat = Surface(offsets, torch.zeros(5, 5), torch.ones(5, 5), 0)
    assert "right everywhere" in texts(loss_surfaces([flat], CLASSES, "nothing"))
