"""Plots of calibration: reliability diagrams, and calibration errors under perturbations."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from trustml_cli.metrics.calibration import equal_width, expected_calibration_error
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import BLUE, GREY, ORANGE, logarithmic, new_figure, tidy
from trustml_cli.training.predict import Answers


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
        panel.xaxis.set_major_formatter(PercentFormatter(1.0))
        tidy(panel, "", "confidence", "" if column else "images")
        panel.yaxis.set_minor_formatter("")
        if column:
            panel.set_yticklabels([])
    told = f"accuracy over confidence in {bins} bins, n = {len(each.labels):,}"
    separator = " " if count > 1 else "\n"  # one panel is narrower than the line
    figure.suptitle(f"{subject}:{separator}{told}", fontsize=11)
    return figure


def reliability_panel(panel: Axes, name: str, answers: Answers, bins: int) -> None:
    """Accuracy over mean confidence in each bin, with 95 % intervals."""
    reliability_points(panel, *counts_of(answers, bins), color=ORANGE)
    error = expected_calibration_error(answers.confidence, answers.correct, bins)
    tidy(panel, f"{name}: ECE {error:.4f}", "", "accuracy")


def reliability_points(
    panel: Axes, counts: Tensor, right: Tensor, sure: Tensor, color: str, line: str = "none", label: str = ""
) -> None:
    """The frequency of an event over its mean probability in each bin, with 95 % intervals, and the diagonal.

    The arguments are those that `counts_in_bins` returns.
    """
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    used = counts.nonzero()[:, 0].tolist()
    shares = [float(right[number] / counts[number]) for number in used]
    ends = [wilson_interval(float(right[number]), float(counts[number])) for number in used]
    errors = [
        [share - low for share, (low, _) in zip(shares, ends, strict=True)],
        [high - share for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    at = [float(sure[number] / counts[number]) for number in used]
    panel.errorbar(at, shares, errors, color=color, marker="o", markersize=4, capsize=2, linestyle=line, label=label)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.02)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))


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
    """For each kind of perturbation, the ECE of each calibrator over its strength, and the accuracy without one.

    `rows` are those of metrics.csv; the images without a perturbation are at strength 0.
    """
    kinds = list(dict.fromkeys(row["perturbation"] for row in rows if row["strength"]))
    figure, axes = new_figure(max(6.4, 1.6 + 4.2 * len(kinds)), 4.6, 1, len(kinds))
    for panel, kind in zip(axes[0], kinds, strict=True):
        own = [row for row in rows if row["perturbation"] == kind or not row["strength"]]
        for number, name in enumerate(dict.fromkeys(row["calibrator"] for row in own)):
            curve = [row for row in own if row["calibrator"] == name]
            color, line = LINES[number % len(LINES)]
            errors = [
                [row["ece"] - row["ece_ci_low"] for row in curve],
                [row["ece_ci_high"] - row["ece"] for row in curve],
            ]
            strengths, values = ([row[key] for row in curve] for key in ("strength", "ece"))
            panel.errorbar(
                strengths, values, errors, color=color, linestyle=line, marker="o", markersize=4, capsize=2, label=name
            )
            if not number:
                accuracy = [row["accuracy"] for row in curve]
                panel.plot(
                    strengths, accuracy, color=GREY, linewidth=1, linestyle=":", marker=".", label=f"accuracy ({name})"
                )
        panel.set_ylim(0, 1.02)
        whole = all(float(row["strength"]).is_integer() for row in own)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
        tidy(
            panel,
            kind.replace("_", " "),
            "pixels" if kind == "shift" else "strength" if whole else "epsilon",
            "calibration error with 95 % interval; accuracy",
        )
    axes[0, -1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{subject}: calibrated on clean images, measured on perturbed ones", fontsize=11)
    return figure
