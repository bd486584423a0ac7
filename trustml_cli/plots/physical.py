"""Plots of adversarial patches and stickers, and of their success rates."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    class_name,
    new_figure,
    outline,
    percent,
    show_image,
    tidy,
)

SCENES = {"pattern": ("with the pattern", ORANGE), "noise": ("with noise in its place", BLUE), "bare": ("bare", GREY)}


@dataclass(frozen=True)
class PatchedResult:
    """Predictions for n scenes under one transformation.

    `predicted` holds the predicted classes [n] for scenes with the `pattern`, with `noise` in its place, and `bare`.
    `confidence` [n] is the probability of the target with the pattern. `examples` are the first scenes with it, `bare`
    the same without.
    """

    name: str
    labels: Tensor
    predicted: dict[str, Tensor]
    confidence: Tensor
    examples: Tensor
    bare: Tensor

    def success(self, scene: str, target: int) -> Tensor:
        """Which scenes are classified as the target, bool [n]."""
        return self.predicted[scene] == target


def success_bars(worn: Sequence[PatchedResult], target: int, subject: str) -> Figure:
    """The share of scenes classified as the target under each transformation, with 95 % intervals."""
    figure, axes = new_figure(7.6, 4.0)
    panel, width = axes[0, 0], 0.27
    n = len(worn[0].labels)
    for number, (scene, (label, color)) in enumerate(SCENES.items()):
        counts = [int(one.success(scene, target).sum()) for one in worn]
        low, high = zip(*(wilson_interval(count, n) for count in counts), strict=True)
        rates = [count / n for count in counts]
        reach = [[rate - end for rate, end in zip(rates, low, strict=True)],
                 [end - rate for rate, end in zip(rates, high, strict=True)]]  # fmt: skip
        places = [place + (number - 1) * width for place in range(len(worn))]
        panel.bar(places, rates, width, color=color, label=label, yerr=reach, error_kw={"linewidth": 0.8})
    panel.set_xticks(range(len(worn)), [one.name for one in worn])
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(percent)
    tidy(panel, f"{subject}\n{n:,} test images of other classes", "transformation", "classified as the target")
    panel.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def worn_images(worn: Sequence[PatchedResult], classes: Sequence[str], target: int, subject: str) -> Figure:
    """The same images, bare and with the pattern under each transformation (rows), with the network's predictions.

    A frame marks where the pattern is.
    """
    count = len(worn[0].examples)
    figure, axes = new_figure(max(1.25 * count + 0.8, 5), 1.4 * len(worn) + 2.3, len(worn) + 1, count)
    first = worn[0]
    for column in range(count):
        label, seen = int(first.labels[column]), int(first.predicted["bare"][column])
        color = GREEN if seen == label else ORANGE if seen == target else "black"
        show_image(
            axes[0, column], first.bare[column], f"is {classes[label]}\nseen as {class_name(classes, seen)}", color
        )
    for row, one in enumerate(worn, start=1):
        for column in range(count):
            seen = int(one.predicted["pattern"][column])
            color = ORANGE if seen == target else GREEN if seen == int(one.labels[column]) else "black"
            show_image(axes[row, column], one.examples[column], class_name(classes, seen), color)
            outline(axes[row, column], one.examples[column], one.bare[column])
    for row, name in enumerate(("bare", *(one.name for one in worn))):
        axes[row, 0].set_ylabel(name, fontsize=9, color=GREY)
    figure.suptitle(subject, fontsize=10)
    figure.supxlabel("orange: classified as the target, green: correct, black: another wrong class", fontsize=8)
    return figure


def pattern_picture(pattern: Tensor, subject: str) -> Figure:
    """The pattern [C, h, w], enlarged."""
    figure, axes = new_figure(4.6, 4.9)
    height, width = pattern.shape[1:]
    show_image(axes[0, 0], pattern, "")
    axes[0, 0].set_title(f"{subject}\n{width}×{height} pixels", fontsize=9)
    return figure
