"""What a reader must find in the pictures: titles, axes, the names of classes, and every point of the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from tests.helpers import band, drawn, heights, points, texts, whiskers
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.measure import EpsilonResult, Predictions, RobustnessCurve
from trustml_cli.attacks.surface import Surface
from trustml_cli.backdoors.patch import Corner, Patch
from trustml_cli.backdoors.poison import Poison
from trustml_cli.data.dataset import Dataset
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.backdoor import accuracy_bars, answers_by_class, poisoned_samples, triggered_predictions
from trustml_cli.plots.filed import filed_under
from trustml_cli.plots.loss_surface import loss_surfaces
from trustml_cli.plots.robustness import adversarial_examples, defended_curves, robustness_curve
from trustml_cli.plots.style import GREEN, ORANGE
from trustml_cli.plots.training import confusion_matrix, misclassified, training_curves
from trustml_cli.plots.transfer import transferred_answers
from trustml_cli.training.predict import Answers
from trustml_cli.training.trainer import Epoch

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
    assert legend(panel) == ["95 % interval", "under attack", "shown to mlp", "clean: 100.0%"]
    for words in ("fgsm against cnn on digits", "4 test images", "epsilon (L∞, pixel units)", "accuracy"):
        assert words in texts(figure)
    figure.savefig(tmp_path / "curve.png")


def test_adversarial_examples_show_those_that_fell_first_with_names_and_confidence() -> None:
    whole = curve()
    figure = adversarial_examples(whole, whole.attacked[1], CLASSES, 2, "fgsm", "linf")
    (panel,) = figure.axes
    captions = [text.get_text() for text in panel.texts if "%" in text.get_text()]
    assert captions == ["bright (90%)", "dark (75%)", "dark (90%)", "bright (75%)"]  # images 1 and 2, which fell
    places = [tuple(image.get_extent()[::2]) for image in panel.images]  # left edge, bottom edge
    assert [len({place[axis] for place in places}) for axis in (0, 1)] == [2, 3]
    shown = {place: np.asarray(image.get_array()) for place, image in zip(places, panel.images, strict=True)}
    assert len(shown) == 6
    by_height = sorted(shown, key=lambda place: place[1])
    for value, row in zip((0.5, 1.0, 0.75), (by_height[:2], by_height[2:4], by_height[4:]), strict=True):
        assert all((shown[place] == value).all() for place in row)
    assert "×2 around grey" in texts(figure)  # the largest change, 0.25, is drawn as half of the range


def test_every_network_s_answer_to_adversarial_images_stands_below_the_original() -> None:
    whole = curve()
    figure = transferred_answers(whole, whole.attacked[1], "cnn", CLASSES, 2, "fgsm", "linf")
    (panel,) = figure.axes
    captions = [text for text in panel.texts if "%" in text.get_text()]
    assert [text.get_text() for text in captions] == [
        "bright (90%)", "dark (90%)",  # the originals of images 1 and 2, which fell
        "dark (75%)", "bright (75%)",
        "bright (75%)", "bright (75%)",  # the other network is right about one of them
    ]  # fmt: skip
    assert [text.get_color() for text in captions] == [GREEN, GREEN, ORANGE, ORANGE, GREEN, ORANGE]
    assert [float(np.max(image.get_array())) for image in panel.images] == [0.5] * 2 + [0.75] * 4
    for words in ("original,\ncnn", "adversarial,\ncnn", "adversarial,\nmlp", "epsilon 0.25"):
        assert words in texts(figure)


def test_training_curves_show_both_splits() -> None:
    rows = [
        Epoch(epoch=i, train_loss=3.0 - i, train_accuracy=0.2 * i, test_loss=3.5 - i, test_accuracy=0.1 * i, lr=1,
              seconds=1, images=1)
        for i in (1, 2)
    ]  # fmt: skip
    figure = training_curves(rows)
    loss, accuracy = figure.axes
    assert [points(loss, 0), points(loss, 1)] == [[(1, 2.0), (2, 1.0)], [(1, 2.5), (2, 1.5)]]
    assert [points(accuracy, 0), points(accuracy, 1)] == [[(1, 0.2), (2, 0.4)], [(1, 0.1), (2, 0.2)]]
    assert legend(loss) == legend(accuracy) == ["train", "test"]
    for words in ("epoch", "cross-entropy (nats)", "test at the end: 20.0%"):
        assert words in texts(figure)


def test_training_curves_show_the_accuracy_under_attack_where_a_defence_trains() -> None:
    rows = [
        Epoch(epoch=i, train_loss=3.0 - i, train_accuracy=0.2 * i, test_loss=3.5 - i, test_accuracy=0.1 * i, lr=1,
              seconds=1, images=1, extra={"train_robust_accuracy": 0.05 * i})
        for i in (1, 2)
    ]  # fmt: skip
    figure = training_curves(rows)
    loss, accuracy = figure.axes
    assert len(loss.lines) == 2
    assert points(accuracy, 2) == [(1, 0.05), (2, 0.1)]
    assert legend(accuracy) == ["train, as attacked in training", "test", "train under attack"]


def test_defended_curves_name_the_defences_and_show_their_intervals() -> None:
    curves = {"none": curve(), "pgd": curve(last=(0, 1, 0, 0))}
    figure = defended_curves(curves, "standard against cnn on digits", "linf")
    (panel,) = figure.axes
    assert [points(panel, 0), points(panel, 1)] == [[(0, 1.0), (0.25, 0.5)], [(0, 1.0), (0.25, 0.75)]]
    assert [band(panel, 0), band(panel, 1)] == [intervals(4, 2), intervals(4, 3)]
    assert legend(panel) == ["no defence (clean: 100.0%)", "trained with pgd (clean: 100.0%)"]
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
    for words in ("dark", "bright", "predicted class", "true class", "32 test images", "50.0%"):
        assert words in texts(figure)


def test_misclassified_names_what_was_seen_and_what_it_is(answers: Answers, tiny_data: Dataset) -> None:
    figure = misclassified(answers, tiny_data.test, CLASSES)
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == ["dark (88%)\nis bright"] * 16
    pixels, _ = next(tiny_data.test.stream(torch.arange(32), 32))
    for axes, image in zip(shown, pixels[tiny_data.test.labels == 1], strict=True):
        assert drawn(axes) == pytest.approx(image[0].numpy() / 255)
    assert "16 of 32 wrong" in texts(figure)


def answers_to(labels: list[int], predicted: list[int]) -> Answers:
    """Answers that are quite sure: softmax of (2, 0) is 88 %."""
    return Answers(2 * torch.eye(2)[predicted], torch.tensor(labels))


def test_poisoned_samples_stand_below_their_originals_with_both_labels(tiny_data: Dataset, tmp_path: Path) -> None:
    trigger = Patch(size=3, color=[1.0], image=None, corner=Corner.top_left, margin=0)
    poison = Poison(trigger=trigger, source=(0,), target=1, classes=2, clean_label=False, rate=0.25, seed=0)
    poisoned = poison.apply(tiny_data)
    chosen = poison.choose(tiny_data.train.labels).nonzero()[:, 0][:5]
    figure = poisoned_samples(tiny_data.train, poisoned.train, chosen, CLASSES, "8 of 64 carry the patch")
    assert [axes.get_title() for axes in figure.axes] == ["dark"] * 5 + ["bright"] * 5
    for above, below in zip(figure.axes[:5], figure.axes[5:], strict=True):
        differs = above.images[0].get_array() != below.images[0].get_array()
        assert differs[:3, :3].all()
        assert differs.sum() == 9
    for words in ("8 of 64 carry the patch", "clean", "poisoned", "green as it was, orange as it is trained on"):
        assert words in texts(figure)
    figure.savefig(tmp_path / "samples.png")


def test_the_poisoned_training_set_is_shown_as_it_is_labelled(tiny_data: Dataset) -> None:
    trigger = Patch(size=3, color=[1.0], image=None, corner=Corner.top_left, margin=0)
    poison = Poison(trigger=trigger, source=(0,), target=1, classes=2, clean_label=False, rate=0.25, seed=0)
    chosen = poison.choose(tiny_data.train.labels).nonzero()[:, 0]
    bright = (tiny_data.train.labels == 1).nonzero()[:, 0]
    figure = filed_under(tiny_data.train, poison.apply(tiny_data).train, [bright, chosen], CLASSES, "8 of 64")
    (panel,) = figure.axes
    captions = [text.get_text() for text in panel.texts][:18]
    assert captions == ["bright"] * 10 + ["bright (is dark)"] * 8
    corners = [np.asarray(image.get_array())[:3, :3].min() for image in panel.images]
    assert max(corners[:10]) < 1
    assert corners[10:] == [1] * 8  # the patch
    for words in ("8 of 64", "target class", "poisoned", "changed by the poison"):
        assert words in texts(figure)


def test_triggered_predictions_take_classes_in_turn_and_show_every_network_s_answer(tiny_data: Dataset) -> None:
    split = tiny_data.test.subset(torch.tensor([0, 2, 4, 1, 3]))  # dark, dark, dark, bright, bright
    labels = split.labels.tolist()
    answers = {"clean model": answers_to(labels, labels), "poisoned model": answers_to(labels, [1, 1, 1, 1, 0])}
    figure = triggered_predictions(split, answers, CLASSES, 3, "with the patch")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["dark (88%)", "bright (88%)", "dark (88%)", "bright (88%)", "bright (88%)", "bright (88%)"]
    assert [axes.title.get_color() for axes in figure.axes[3:]] == [ORANGE, GREEN, ORANGE]
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
    for words in (f"{CLASSES[0]}: wrong in 40% of it", f"{CLASSES[1]}: wrong in 60% of it", "fgsm against cnn", "nats"):
        assert words in texts(figure)
    flat = Surface(offsets, torch.zeros(5, 5), torch.ones(5, 5), 0)
    assert "right everywhere" in texts(loss_surfaces([flat], CLASSES, "nothing"))
