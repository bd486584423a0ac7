"""What a reader must find in the pictures: titles, axes, the names of classes, and every point of the data."""

from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trustml_cli.attacks.measure import Attacked, Curve
from trustml_cli.data.dataset import Dataset
from trustml_cli.plots.robustness import adversarial_examples, robustness_curve
from trustml_cli.plots.training import confusion_matrix, misclassified, training_curves
from trustml_cli.training.predict import Answers
from trustml_cli.training.trainer import Epoch

CLASSES = ("dark", "bright")


def texts(figure: Figure) -> str:
    """Every word in a figure."""
    found = [figure.get_suptitle(), figure.get_supxlabel()]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
        found += [tick.get_text() for tick in axes.get_xticklabels()]
        if (legend := axes.get_legend()) is not None:
            found += [text.get_text() for text in legend.get_texts()]
    return "\n".join(found)


def line(axes: Axes, number: int) -> list[float]:
    return [float(value) for value in axes.lines[number].get_ydata()]  # type: ignore[union-attr,arg-type]


def curve() -> Curve:
    images = torch.full((4, 1, 8, 8), 0.5)
    labels, zeros = torch.tensor([0, 1, 0, 1]), torch.zeros(4)
    result = Curve(labels, labels.clone(), torch.full((4,), 0.9), torch.zeros(4, dtype=torch.bool), images)
    for epsilon, predicted in ((0.0, [0, 1, 0, 1]), (0.25, [0, 0, 1, 1])):
        answer = torch.tensor(predicted)
        result.attacked.append(
            Attacked(epsilon, answer, torch.full((4,), 0.75), zeros, zeros, zeros, 0.0, images + epsilon)
        )
    return result


def test_robustness_curve_shows_every_epsilon_and_the_interval(tmp_path: Path) -> None:
    figure = robustness_curve(curve(), "fgsm against cnn on digits", "linf")
    assert line(figure.axes[0], 0) == [1.0, 0.5]
    assert len(figure.axes[0].collections) == 1
    for words in ("fgsm against cnn on digits", "4 test images", "epsilon (L∞, pixel units)", "95 % interval", "clean"):
        assert words in texts(figure)
    figure.savefig(tmp_path / "curve.png")


def test_adversarial_examples_show_those_that_fell_first_with_names_and_confidence() -> None:
    whole = curve()
    figure = adversarial_examples(whole, whole.attacked[1], CLASSES, 2, "fgsm", "linf")
    assert len(figure.axes) == 6
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["bright (90%)", "dark (90%)"]  # images 1 and 2, which fell
    assert titles[4:] == ["dark (75%)", "bright (75%)"]
    assert "×2 around grey" in texts(figure)  # the largest change, 0.25, is drawn as half of the range


def test_training_curves_show_both_splits() -> None:
    rows = [
        Epoch(epoch=i, train_loss=3.0 - i, train_accuracy=0.2 * i, test_loss=3.5 - i, test_accuracy=0.1 * i, lr=1,
              seconds=1, images=1)
        for i in (1, 2)
    ]  # fmt: skip
    loss, accuracy = training_curves(rows).axes
    assert [line(loss, 0), line(loss, 1)] == [[2.0, 1.0], [2.5, 1.5]]
    assert [line(accuracy, 0), line(accuracy, 1)] == [[0.2, 0.4], [0.1, 0.2]]


@pytest.fixture
def answers(tiny_data: Dataset) -> Answers:
    """Everything is called dark: half of the 32 test images are wrong."""
    return Answers(torch.tensor([[2.0, 0.0]]).repeat(32, 1), tiny_data.test.labels)


def test_confusion_matrix_counts_and_names_the_classes(answers: Answers) -> None:
    figure = confusion_matrix(answers, CLASSES)
    assert [(t.get_position(), t.get_text()) for t in figure.axes[0].texts] == [((0, 0), "16"), ((0, 1), "16")]
    for words in ("dark", "bright", "predicted class", "true class", "32 test images", "50.0%"):
        assert words in texts(figure)


def test_misclassified_names_what_was_seen_and_what_it_is(answers: Answers, tiny_data: Dataset) -> None:
    figure = misclassified(answers, tiny_data.test, CLASSES)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["dark (88%)\nis bright"] * 16
    assert "16 of 32 wrong" in texts(figure)
