"""Plots of calibration: reliability diagrams, and calibration errors under perturbations."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.metrics.calibration import equal_width, expected_calibration_error
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.lines import Line, few_places, shares
from trustml_cli.plots.style import BLUE, GREY, ORANGE, logarithmic, new_figure, percent, tidy
from trustml_cli.training.predict import Answers

NONE = "none"  # the calibrator that changes nothing
FEWEST = 5  # images in a bin from which on its accuracy says much
PALE = "#e3c9b5"


def reliability_diagrams(answers: Mapping[str, Answers], bins: int, subject: str) -> Figure:
    """For each calibrator, the accuracy of each bin of confidence with its interval, and the number of images in it."""
    count = len(answers)
    figure, axes = new_figure(max(5.0, 0.8 + 3.1 * count), 5.4, 2, count, heights=[3, 1])
    most = max(int(counts_of(each, bins)[0].max()) for each in answers.values())
    for column, (name, each) in enumerate(answers.items()):
        reliability_panel(axes[0, column], name, each, bins)
        panel = axes[1, column]
        counts, edges = counts_of(each, bins)[0].tolist(), [number / bins for number in range(bins)]
        panel.bar(edges, counts, width=1 / bins, align="edge", color=BLUE, edgecolor="white", linewidth=0.5)
        logarithmic(panel.yaxis)
        panel.set_ylim(0.7, 2 * most)
        panel.set_xlim(0, 1)
        panel.xaxis.set_major_formatter(percent)
        tidy(panel, "", "confidence", "" if column else "examples")
        panel.yaxis.set_minor_formatter("")
        if column:
            panel.set_yticklabels([])
    few = f"pale: fewer than {FEWEST} examples"
    told = f"accuracy over confidence in {bins} bins, n = {len(each.labels):,}; {few}"
    separator = " " if count > 1 else "\n"  # one panel is narrower than the line
    figure.suptitle(f"{subject}:{separator}{told}", fontsize=11)
    return figure


def reliability_panel(panel: Axes, name: str, answers: Answers, bins: int) -> None:
    """Accuracy over mean confidence in each bin, with 95 % intervals."""
    reliability_points(panel, *counts_of(answers, bins), color=ORANGE, fewest=FEWEST)
    error = expected_calibration_error(answers.confidence, answers.correct, bins)
    tidy(panel, f"{words(name)}\nECE {in_percent(error)}", "", "accuracy")


def reliability_points(
    panel: Axes, counts: Tensor, right: Tensor, sure: Tensor, color: str, line: str = "none", label: str = "",
    fewest: int = 1,
) -> None:  # fmt: skip
    """The frequency of an event over its mean probability in each bin, with 95 % intervals, and the diagonal.

    `counts`, `right` and `sure` are what `counts_in_bins` returns. Bins with fewer than `fewest` examples are pale.
    """
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    used = counts.nonzero()[:, 0].tolist()
    frequencies = [float(right[number] / counts[number]) for number in used]
    ends = [wilson_interval(float(right[number]), float(counts[number])) for number in used]
    errors = [
        [share - low for share, (low, _) in zip(frequencies, ends, strict=True)],
        [high - share for share, (_, high) in zip(frequencies, ends, strict=True)],
    ]
    at = [float(sure[number] / counts[number]) for number in used]
    pale = [int(counts[number]) < fewest for number in used]
    for faint in {*pale}:
        chosen = [place for place, each in enumerate(pale) if each == faint]
        x, y, *reach = ([values[place] for place in chosen] for values in (at, frequencies, *errors))
        look: dict[str, Any] = {
            "color": PALE if faint else color,
            "label": "" if faint else label,
            "zorder": 1.5 if faint else 2,
        }
        panel.errorbar(x, y, reach, marker="o", markersize=4, capsize=2, linestyle=line, **look)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.02)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(percent)


def counts_of(answers: Answers, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """In each bin of confidence: images, correct ones, and the sum of their confidences, each [bins]."""
    return counts_in_bins(answers.confidence, answers.correct, bins)


def counts_in_bins(probability: Tensor, happened: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """In each bin of the probability [N] of an event: examples, how often it happened, and the sum of probabilities."""
    number = equal_width(probability, bins)
    counts = torch.bincount(number, minlength=bins)
    right = torch.bincount(number, happened.double(), minlength=bins)
    return counts, right, torch.bincount(number, probability.double(), minlength=bins)


def calibration_under_perturbation(rows: Sequence[Mapping[str, Any]], subject: str) -> Figure:
    """The ECE of each calibrator (rows) over the strength of each kind of perturbation (columns), and its accuracy.

    `rows` are those of metrics.csv; the images without a perturbation are at strength 0. Where the network was also
    measured without calibration, its ECE is in every panel.
    """
    kinds = list(dict.fromkeys(row["perturbation"] for row in rows if row["strength"]))
    every = list(dict.fromkeys(row["calibrator"] for row in rows))
    names = [name for name in every if name != NONE] or every
    size = max(6.4, 1.0 + 3.0 * len(kinds)), 1.3 + 2.3 * len(names)
    figure, axes = new_figure(*size, len(names), len(kinds))
    for column, kind in enumerate(kinds):
        own = [row for row in rows if row["perturbation"] == kind or not row["strength"]]
        for panel, name in zip(axes[:, column], names, strict=True):
            curve = [row for row in own if row["calibrator"] == name]
            accuracy = Line.of_rows(curve, "strength", "accuracy")
            accuracy.draw(panel, GREY, "accuracy", linestyle=":")
            if NONE in every:
                bare = [row for row in own if row["calibrator"] == NONE]
                Line.of_rows(bare, "strength", "ece").draw(panel, BLUE, "calibration error before calibration")
            if name != NONE:
                Line.of_rows(curve, "strength", "ece").draw(panel, ORANGE, "after calibration", linestyle="--")
            shares(panel)
            few_places(panel, accuracy.x)
            tidy(panel, words(kind) if name == names[0] else "", "", "" if column else words(name))
        axes[-1, column].set_xlabel(unit_of(kind, own))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"{subject}: calibrated on clean images, measured on perturbed ones", fontsize=11)
    return figure


def words(name: str) -> str:
    """The name of a calibrator or of a perturbation in words."""
    return "not calibrated" if name == NONE else name.replace("_", " ")


def unit_of(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the strength of a kind of perturbation is counted in."""
    whole = all(float(row["strength"]).is_integer() for row in rows)
    return "pixels" if kind == "shift" else "strength" if whole else "epsilon"
