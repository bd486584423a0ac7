"""Plots of a backdoor: poisoned training images, predictions for triggered images, and accuracies."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.data.batches import as_pixels
from trustml_cli.data.dataset import Split
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    label_answer,
    legend_below,
    new_figure,
    outline,
    percent,
    show_image,
    tidy,
)
from trustml_cli.training.predict import Answers

COLORS = (BLUE, ORANGE)
CLASSES_SHOWN = 20  # largest number of classes; more bars would be too thin to read
SHORT = 6  # letters of a name from which on images are further apart
A_ROW = 10  # most images in a row
WIDTH, NARROW = 1.25, 1.0  # inches per image with its caption, for long and short names of classes


def poisoned_samples(clean: Split, poisoned: Split, chosen: Tensor, classes: Sequence[str], subject: str) -> Figure:
    """The training images `chosen` (int64 [M]) before and after poisoning, each with its label, `A_ROW` in a row."""
    parts = torch.split(chosen, A_ROW)
    columns = min(A_ROW, len(chosen))
    figure, axes = new_figure(width(classes) * max(4, columns) + 0.4, 0.7 + 2.5 * len(parts), 2 * len(parts), columns)
    for panel in axes.flat:
        panel.set_axis_off()
    for number, part in enumerate(parts):
        (before, labels), (after, filed) = (next(split.stream(part, len(part))) for split in (clean, poisoned))
        before, after = as_pixels(before), as_pixels(after)
        for column, (bare, marked) in enumerate(zip(before, after, strict=True)):
            upper, lower = axes[2 * number, column], axes[2 * number + 1, column]
            show_image(upper, bare, classes[int(labels[column])], GREEN)
            show_image(lower, marked, classes[int(filed[column])], ORANGE)
            outline(lower, marked, bare)
            for panel in (upper, lower):
                panel.set_axis_on()
        name_rows(axes[2 * number : 2 * number + 2, 0].tolist(), ("clean", "poisoned"))
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("above each image its label: green as it was, orange as it is trained on", fontsize=8)
    return figure


def triggered_predictions(
    bare: Split, triggered: Split, answers: Mapping[str, Answers], classes: Sequence[str], count: int, subject: str
) -> Figure:
    """The first triggered images of each true class in turn, with the prediction of every network in `answers`.

    Above them the same images without the trigger (`bare`), with their true class.
    """
    shown = in_turn(triggered.labels, min(count, A_ROW))
    rows = 1 + len(answers)
    figure, axes = new_figure(
        width(classes) * max(4, len(shown)) + 0.4, 1.35 * rows + 0.5, rows=rows, columns=len(shown)
    )
    (raw, labels), (marked, _) = (next(split.stream(shown, len(shown))) for split in (bare, triggered))
    clean, pixels = as_pixels(raw), as_pixels(marked)
    for panel, image, label in zip(axes[0], clean, labels.tolist(), strict=True):
        show_image(panel, image, f"is {classes[label]}")
    for panels, answer in zip(axes[1:], answers.values(), strict=True):
        predicted, confidence = answer.predicted[shown].tolist(), answer.confidence[shown].tolist()
        for column, (panel, label, number, sure) in enumerate(
            zip(panels, labels.tolist(), predicted, confidence, strict=True)
        ):
            show_image(panel, pixels[column], label_answer(classes[number], sure), GREEN if number == label else ORANGE)
            outline(panel, pixels[column], clean[column])
    name_rows(axes[:, 0].tolist(), ["without trigger", *answers])
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("green: the right class, orange: a wrong one; with the model's confidence", fontsize=8)
    return figure


def answers_by_class(answers: Mapping[str, Answers], classes: Sequence[str], subject: str) -> Figure:
    """Shares of the most frequently predicted classes for each network in `answers`, with 95 % intervals."""
    counts = {name: torch.bincount(answer.predicted, minlength=len(classes)) for name, answer in answers.items()}
    often = torch.stack(list(counts.values())).sum(0).argsort(descending=True, stable=True)
    shown = often[:CLASSES_SHOWN].sort().values
    names = [classes[index] for index in shown]
    figure, axes = new_figure(max(6.4, 0.7 * len(shown) + 1.5), 4.0)
    shares = {name: [(int(count[index]), int(count.sum())) for index in shown] for name, count in counts.items()}
    grouped_bars(axes[0, 0], names, shares)
    tidy(axes[0, 0], subject, "predicted class", "share of triggered images")
    return figure


def accuracy_bars(answers: Mapping[str, tuple[Answers, ...]], kinds: Sequence[str], subject: str) -> Figure:
    """Accuracy of each network in `answers` on each kind of images, with 95 % intervals."""
    figure, axes = new_figure(6.4, 4.0)
    right = {
        kind: [(int(given[number].correct.sum()), len(given[number].labels)) for given in answers.values()]
        for number, kind in enumerate(kinds)
    }
    grouped_bars(axes[0, 0], list(answers), right)
    tidy(axes[0, 0], subject, "", "accuracy")
    return figure


def grouped_bars(panel: Axes, groups: Sequence[str], shares: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """For each group one bar per kind, from (count, total) pairs, with 95 % Wilson intervals."""
    width = 0.8 / len(shares)
    for number, (kind, counts) in enumerate(shares.items()):
        heights = [count / n for count, n in counts]
        low, high = zip(*(wilson_interval(count, n) for count, n in counts), strict=True)
        below = [height - end for height, end in zip(heights, low, strict=True)]
        above = [end - height for height, end in zip(heights, high, strict=True)]
        places = [place + (number - (len(shares) - 1) / 2) * width for place in range(len(groups))]
        panel.bar(places, heights, width, color=COLORS[number], label=kind)
        panel.errorbar(places, heights, [below, above], fmt="none", ecolor=GREY, capsize=2)
    panel.set_xticks(range(len(groups)), groups, rotation=45 if len(groups) > 5 and max(map(len, groups)) > 7 else 0)
    panel.set_ylim(0, 1.03)
    panel.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    panel.yaxis.set_major_formatter(percent)
    legend_below(panel)


def width(classes: Sequence[str]) -> float:
    """Inches per image, so that captions with these names do not overlap."""
    return NARROW if max(map(len, classes)) < SHORT else WIDTH


def in_turn(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` examples (or all, if there are fewer): the first of each class, then the second."""
    rank = torch.zeros(len(labels), dtype=torch.int64)
    for number in set(labels.tolist()):
        of_class = labels == number
        rank[of_class] = torch.arange(int(of_class.sum()))
    return rank.argsort(stable=True)[:count]


def name_rows(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """Label each row of images on the left."""
    for panel, name in zip(panels, names, strict=True):
        panel.set_ylabel(name, fontsize=9, color=GREY)
