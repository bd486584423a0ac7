"""Plots of training and of a classifier's errors."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trustml_cli.data.batches import as_pixels
from trustml_cli.data.dataset import Split
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SERIES,
    label_answer,
    new_figure,
    percent,
    show_image,
    tidy,
)
from trustml_cli.training.predict import Answers
from trustml_cli.training.trainer import Epoch

MOST_NAMED = 3  # most networks whose accuracies fit into a title
NAMED_CLASSES = 30  # largest number of classes for which a confusion matrix shows names and counts


def training_curves(histories: Mapping[str, Sequence[Epoch]], subject: str) -> Figure:
    """Loss and accuracy on training and test images over the iterations, of each network by its name.

    Iterations are batches; where their number is not known, the axis is epochs. A single network has a colour for each
    kind of images, and accuracy under attack if it was trained for that; several have a colour each, and training is
    dashed. Where iterations were logged, each batch is a thin line.
    """
    figure, axes = new_figure(9, 3.9, columns=2)
    alone = len(histories) == 1
    counted = all(row.step is not None for history in histories.values() for row in history)
    for panel, what in zip(axes[0], ("loss", "accuracy"), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            for split, color in (("train", BLUE), ("test", ORANGE)):
                color = color if alone else SERIES[number % len(SERIES)]
                draw_split(panel, history, what, split, color, "" if alone else name, counted)
            if alone and what == "accuracy":
                draw_under_attack(panel, history, counted)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    over = "iteration" if counted else "epoch"
    tidy(axes[0, 0], "Loss", over, "cross-entropy (nats)")
    tidy(axes[0, 1], "Accuracy", over, "accuracy")
    axes[0, 1].yaxis.set_major_formatter(percent)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    final = ", ".join(f"{name} {in_percent(history[-1].test_accuracy)}".strip() for name, history in histories.items())
    named = len(histories) <= MOST_NAMED
    figure.suptitle(f"{subject}: test accuracy {final} at the end" if named else subject, fontsize=11)
    return figure


def draw_split(
    panel: Axes, history: Sequence[Epoch], what: str, split: str, color: str, name: str, counted: bool
) -> None:
    """Draw the loss or accuracy (`what`) of a network on one split: each epoch, and thin what was logged within."""
    marker = "o" if len(history) < 30 else None
    line = "--" if split == "train" else "-"
    defended = "train_robust_accuracy" in history[-1].extra
    kind = "train, as attacked in training" if defended and split == "train" else split
    iterations = [each for row in history for each in row.iterations]
    if iterations:
        values = [getattr(each, f"{split}_{what}") for each in iterations]
        panel.plot([each.step for each in iterations], values, line, color=color, linewidth=0.7, alpha=0.6)
    values = [getattr(row, f"{split}_{what}") for row in history]
    label = f"{name}, {kind}" if name else kind
    panel.plot(places(history, counted), values, line, color=color, marker=marker, markersize=3, label=label)


def draw_under_attack(panel: Axes, history: Sequence[Epoch], counted: bool) -> None:
    """Draw the accuracy under attack that robust training measured after each epoch, if it did."""
    for split, color in (("train", GREEN), ("validation", GREY)):
        measured = [row.extra.get(f"{split}_robust_accuracy") for row in history]
        if values := [share for share in measured if share is not None]:
            panel.plot(places(history, counted), values, ":o", color=color, markersize=3, label=f"{split} under attack")


def places(history: Sequence[Epoch], counted: bool) -> list[int]:
    """Where the epochs stand on the axis."""
    return [(row.step or 0) if counted else row.epoch for row in history]


def confusion_matrix(answers: Answers, classes: Sequence[str]) -> Figure:
    """The confusion matrix, true classes in rows; each row adds up to 100 %."""
    count = len(classes)
    pairs = torch.bincount(answers.labels * count + answers.predicted, minlength=count**2).view(count, count)
    shares = pairs / pairs.sum(1, keepdim=True).clamp(min=1)
    side = min(10.0, 3 + 0.45 * count)
    figure, axes = new_figure(side + 0.8, side)
    panel = axes[0, 0]
    image = panel.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=panel, format=FuncFormatter(percent), label="share of the true class", shrink=0.8)
    panel.set_title(
        f"Confusion on {len(answers.labels):,} test images: {in_percent(answers.accuracy)} right", fontsize=11
    )
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    if count <= NAMED_CLASSES:
        panel.set_xticks(range(count), classes, rotation=0 if max(map(len, classes)) < 3 else 45, ha="center")
        panel.set_yticks(range(count), classes)
        for row in range(count):
            for column in range(count):
                if number := int(pairs[row, column]):
                    dark = shares[row, column] > 0.5
                    panel.text(
                        column, row, number, ha="center", va="center", fontsize=7, color="white" if dark else "black"
                    )
    return figure


def misclassified(answers: Answers, split: Split, classes: Sequence[str]) -> Figure:
    """Up to 24 misclassified images, those with the highest confidence first."""
    wrong = (~answers.correct).nonzero()[:, 0]
    worst = wrong[answers.confidence[wrong].argsort(descending=True)][:24]
    columns = min(6, len(worst))
    rows = -(-len(worst) // columns)
    figure, axes = new_figure(max(5.0, 1.5 * columns), 0.6 + 1.65 * rows, rows, columns)
    raw, _ = next(split.stream(worst, len(worst)))
    for panel, index, pixels in zip(axes.flat, worst.tolist(), as_pixels(raw), strict=False):
        predicted, label = int(answers.predicted[index]), int(answers.labels[index])
        answer = label_answer(classes[predicted], float(answers.confidence[index]))
        show_image(panel, pixels, f"{answer}\nis {classes[label]}")
    for panel in axes.flat[len(worst) :]:
        panel.set_axis_off()
    figure.suptitle(f"{len(wrong):,} of {len(answers.labels):,} wrong; the most confident mistakes", fontsize=11)
    return figure
