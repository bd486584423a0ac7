"""Plots of corrupted images, and of what a classifier makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import BLUE, GAP, GREY, new_figure, tidy, tile

MEAN = "mean"


def accuracy_over_strength(rows: Sequence[Mapping[str, Any]], subject: str) -> Figure:
    """Accuracy, and calibration error, of each corruption over the strength; from rows of metrics.csv."""
    names = [name for name in dict.fromkeys(row["corruption"] for row in rows if row["severity"]) if name != MEAN]
    clean = next(row for row in rows if not row["severity"])
    figure, axes = new_figure(11, 5.0, columns=2)
    looks = [(color, line, marker) for marker in "os^" for color, line in LINES]
    for panel, (value, label) in zip(
        axes[0], (("accuracy", "accuracy"), ("ece", "expected calibration error")), strict=True
    ):
        for name, (color, line, marker) in zip(names, looks, strict=False):
            own = [clean, *(row for row in rows if row["corruption"] == name)]
            panel.plot(
                [row["severity"] for row in own], [row[value] for row in own],
                color=color, linestyle=line, marker=marker, markersize=4, linewidth=1, label=name.replace("_", " "),
            )  # fmt: skip
        own = [clean, *(row for row in rows if row["corruption"] == MEAN)]
        strengths, values = [row["severity"] for row in own], [row[value] for row in own]
        panel.plot(strengths, values, color="black", linewidth=3, label=MEAN)
        panel.set_ylim(0, 1.02 if value == "accuracy" else None)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(panel, "", "strength, 0 = clean", label)
    axes[0, 1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(subject, fontsize=11)
    return figure


def corruption_errors(errors: Mapping[str, Mapping[str, Any]], subject: str) -> Figure:
    """The corruption error of each corruption and the mean, with intervals; 1 is the baseline's."""
    names = list(errors)
    figure, axes = new_figure(7.0, 1.4 + 0.28 * len(names))
    panel = axes[0, 0]
    values = [errors[name]["corruption_error"] for name in names]
    ends = [[errors[name][f"corruption_error_ci_{end}"] for name in names] for end in ("low", "high")]
    whiskers = [
        [value - low for value, low in zip(values, ends[0], strict=True)],
        [high - value for value, high in zip(values, ends[1], strict=True)],
    ]
    colors = ["black" if name == MEAN else BLUE for name in names]
    panel.barh(range(len(names)), values, color=colors, height=0.7)
    panel.errorbar(values, range(len(names)), xerr=whiskers, fmt="none", ecolor=GREY, capsize=2)
    panel.axvline(1, color=GREY, linewidth=0.8, linestyle="--")
    panel.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    panel.invert_yaxis()
    tidy(panel, subject, "corruption error with 95 % interval; below 1: fewer errors than the baseline", "")
    return figure


def corrupted_images(
    image: Tensor, shown: Mapping[str, Sequence[Tensor]], strengths: Sequence[int], subject: str
) -> Figure:
    """A grid: `image` [C, H, W], and under each corruption (columns) in each strength (rows)."""
    columns = len(shown)
    figure, axes = new_figure(max(5.0, 0.6 + 0.95 * columns), 1.2 + 1.1 * len(strengths))
    panel = axes[0, 0]
    for column, (name, images) in enumerate(shown.items(), start=1):
        for row, each in enumerate(images):
            tile(panel, row, column, each, name.replace("_", "\n") if row == 0 else "")
    tile(panel, 0, 0, image, "clean")
    height = image.shape[1] / image.shape[2]
    for row, strength in enumerate(strengths):
        if row:
            panel.text(
                0.94, (row + 0.5) * height + 3 * GAP * row, f"strength {strength}", ha="right", va="center", fontsize=8
            )
    panel.set_xlim(0, (columns + 1) * (1 + GAP))
    panel.set_ylim(len(strengths) * (height + 3 * GAP), -0.4)
    panel.set_axis_off()
    panel.set_title(f"{subject}: common corruptions in strengths {strengths[0]} to {strengths[-1]}", fontsize=11)
    return figure
