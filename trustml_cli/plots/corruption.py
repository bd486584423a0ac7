"""Plots of corrupted images, and of what a classifier makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.lines import Line, few_places, shares
from trustml_cli.plots.style import BLUE, GAP, GREEN, GREY, ORANGE, name_rows, new_figure, tidy, tile

MEAN = "mean"
PALE = "#bbbbbb"
ACROSS = 6  # images in a row where there is one strength


def accuracy_over_strength(rows: Sequence[Mapping[str, Any]], subject: str) -> Figure:
    """Accuracy and calibration error over the strength, each corruption in a panel; from rows of metrics.csv.

    The first panel is the mean over the corruptions, whose accuracy is grey in the others.
    """
    names = list(dict.fromkeys([MEAN, *(row["corruption"] for row in rows if row["severity"])]))
    clean = next(row for row in rows if not row["severity"])
    curves = {name: [clean, *(row for row in rows if row["corruption"] == name)] for name in names}
    columns = min(4, len(names))
    height = -(-len(names) // columns)
    figure, axes = new_figure(max(6.4, 0.6 + 2.3 * columns), 1.3 + 1.9 * height, height, columns)
    mean = Line.of_rows(curves[MEAN], "severity", "accuracy")
    for number, (panel, (name, curve)) in enumerate(zip(axes.flat, curves.items(), strict=False)):
        if number:
            panel.plot(mean.x, mean.y, color=PALE, linewidth=1.5, label="mean accuracy over the corruptions")
        Line.of_rows(curve, "severity", "accuracy").draw(panel, BLUE, "accuracy")
        errors = [row["ece"] for row in curve]  # the mean over corruptions has no interval
        panel.plot(mean.x, errors, "s--", color=ORANGE, markersize=3, label="expected calibration error")
        shares(panel)
        few_places(panel, mean.x)
        tidy(panel, name.replace("_", " "), "strength" if number + columns >= len(names) else "", "")
        panel.title.set_fontsize(9)
        panel.tick_params(labelleft=number % columns == 0, labelbottom=number + columns >= len(names))
    for panel in axes.flat[len(names) :]:
        panel.set_axis_off()
    handles = axes.flat[len(names) - 1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"{subject}; strength 0: clean images", fontsize=11)
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
    shown: Mapping[str, Sequence[tuple[Tensor, str, bool]]], strengths: Sequence[int], subject: str
) -> Figure:
    """An image under each corruption (rows) in each strength (columns), with the network's answers.

    `shown` has, for each corruption, the clean image [C, H, W] and that in each strength, each with the answer and
    whether it is right. With one strength the images are in the order of reading, the clean one first.
    """
    if len(strengths) == 1:
        return in_one_strength(shown, f"{subject}, strength {strengths[0]}")
    rows, columns = len(shown), 1 + len(strengths)
    figure, axes = new_figure(0.9 + 1.0 * columns, 0.9 + 1.12 * rows)
    panel = axes[0, 0]
    for row, images in enumerate(shown.values()):
        for column, (image, answer, right) in enumerate(images):
            tile(panel, row, column, image, answer, GREEN if right else ORANGE)
    name_rows(panel, [name.replace("_", "\n") for name in shown])
    for column, strength in enumerate((0, *strengths)):
        place = column * (1 + GAP) + 0.5
        panel.text(place, -6 * GAP, f"strength {strength}" if strength else "clean", fontsize=8, ha="center")
    panel.set_ylim(top=-9 * GAP)
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("above each image the network's answer; orange: a wrong class", fontsize=8)
    return figure


def in_one_strength(shown: Mapping[str, Sequence[tuple[Tensor, str, bool]]], subject: str) -> Figure:
    """An image, then the same under each corruption, with the network's answers."""
    images = {"clean": next(iter(shown.values()))[0]} | {name: each[1] for name, each in shown.items()}
    columns = min(ACROSS, len(images))
    rows = -(-len(images) // columns)
    figure, axes = new_figure(0.4 + 1.6 * columns, 0.9 + 1.85 * rows)
    for number, (name, (image, answer, right)) in enumerate(images.items()):
        words = f"{name.replace('_', ' ')}: {answer}"
        tile(axes[0, 0], *divmod(number, columns), image, words, GREEN if right else ORANGE)
    name_rows(axes[0, 0], [""] * rows)
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("after each name the network's answer; orange: a wrong class", fontsize=8)
    return figure
