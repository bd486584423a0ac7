"""Plots of training and of a classifier's errors."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from trustml_cli.data.batches import as_pixels
from trustml_cli.data.dataset import Split
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, label_answer, new_figure, show_image, tidy
from trustml_cli.training.predict import Answers
from trustml_cli.training.trainer import Epoch

NAMED_CLASSES = 30  # largest number of classes for which a confusion matrix shows names and counts


def training_curves(history: Sequence[Epoch]) -> Figure:
    """Loss and accuracy on training and test images over the epochs, and accuracy under attack for robust training."""
    figure, axes = new_figure(9, 3.6, columns=2)
    epochs = [row.epoch for row in history]
    marker = "o" if len(history) < 30 else None
    defended = "train_robust_accuracy" in history[-1].extra
    for panel, what in zip(axes[0], ("loss", "accuracy"), strict=True):
        for split, color, line in (("train", BLUE, "--"), ("test", ORANGE, "-")):
            values = [getattr(row, f"{split}_{what}") for row in history]
            label = "train, as attacked in training" if defended and split == "train" else split
            panel.plot(epochs, values, line, color=color, marker=marker, markersize=3, label=label)
        for split, color in (("train", GREEN), ("validation", GREY)):
            under_attack = [row.extra.get(f"{split}_robust_accuracy") for row in history]
            if what == "accuracy" and None not in under_attack:
                label = f"{split} under attack"
                panel.plot(epochs, under_attack, ":", color=color, marker=marker, markersize=3, label=label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(frameon=False)
    tidy(axes[0, 0], "Loss", "epoch", "cross-entropy (nats)")
    final = history[-1].test_accuracy
    tidy(axes[0, 1], f"Accuracy (test at the end: {final:.1%})", "epoch", "accuracy")
    axes[0, 1].yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def confusion_matrix(answers: Answers, classes: Sequence[str]) -> Figure:
    """The confusion matrix, true classes in rows; each row adds up to 100 %."""
    count = len(classes)
    pairs = torch.bincount(answers.labels * count + answers.predicted, minlength=count**2).view(count, count)
    shares = pairs / pairs.sum(1, keepdim=True).clamp(min=1)
    side = min(10.0, 3 + 0.45 * count)
    figure, axes = new_figure(side + 0.8, side)
    panel = axes[0, 0]
    image = panel.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=panel, format=PercentFormatter(1.0), label="share of the true class", shrink=0.8)
    panel.set_title(f"Confusion on {len(answers.labels):,} test images: {answers.accuracy:.1%} right", fontsize=11)
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
