"""Plots of predictions by group before and after debiasing, and of the debiasing game."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.data.table import Attribute
from trustml_cli.fairness.measure import Point, Scored
from trustml_cli.metrics.calibration import BINS as CALIBRATION_BINS
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.calibration import counts_in_bins, reliability_points
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, logarithmic, new_figure, percent, tidy

COLORS = [ORANGE, BLUE, GREEN, GREY, "#B0578D", "#8A6D00"]
BINS = 40
RATES = ("base_rate", "selection_rate", "true_positive_rate", "false_positive_rate", "precision", "accuracy")


def densities(
    before: Scored,
    after: Scored,
    number: int,
    attribute: Attribute,
    subject: str,
    aucs: Sequence[float],
    measure: str = "p_rule",
) -> Figure:
    """Densities of the predicted probability of the favourable class in each group, before and after debiasing.

    `number` is the index of the attribute among the sensitive ones; `subject` names the model and the method. `aucs`
    are the AUCs of the adversary that guesses the group from the prediction, before and after; `measure` is the
    fairness metric in the titles.
    """
    figure, axes = new_figure(9, 4.0, columns=2)
    stages = zip(axes[0], ("baseline", "debiased"), (before, after), aucs, strict=True)
    for panel, stage, scored, auc in stages:
        group = scored.sensitive[:, number]
        for index, label in enumerate(attribute.groups):
            if not (here := group == index).any():
                continue
            rate = scored.selected[here].double().mean().item()
            color, style = COLORS[index % len(COLORS)], "-" if index < len(COLORS) else "--"
            panel.hist(
                scored.probability[here].numpy(), bins=np.linspace(0, 1, BINS + 1), density=True, histtype="stepfilled",
                edgecolor=color, facecolor=(color, 0.12), linewidth=1.5, linestyle=style,
                label=f"{label}: {in_percent(rate)} selected",
            )  # fmt: skip
        panel.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
        panel.set_xlim(0, 1)
        logarithmic(panel.yaxis)
        panel.legend(frameon=False, fontsize=8, loc="upper right")
        value = scored.fairness(measure)[number]
        told = f"p-rule {value:.0f} %" if measure == "p_rule" else f"{measure.replace('_', ' ')} {value:.3f}"
        title = f"{stage}: accuracy {in_percent(scored.accuracy)}, adversary's AUC {auc:.2f}\n{told}"
        tidy(panel, title, "predicted probability", "density (log scale)")
    figure.suptitle(f"{subject}: by {attribute.name}, {len(before.labels):,} test rows", fontsize=11)
    return figure


def training_path(path: Sequence[Point], names: Sequence[str], measure: str, target: float, subject: str) -> Figure:
    """Accuracy and the fairness metric called `measure` on validation rows over the rounds of the game."""
    figure, axes = new_figure(6.8, 5.2, rows=2)
    accuracy, fairness = axes[:, 0]
    rounds = [point.round for point in path]
    accuracy.plot(rounds, [point.accuracy for point in path], color=BLUE)
    accuracy.yaxis.set_major_formatter(percent)
    for number, name in enumerate(names):
        color = COLORS[number % len(COLORS)]
        fairness.plot(rounds, [point.fairness[number] for point in path], color=color, label=name)
    is_rule = measure == "p_rule"
    wanted = f"{target:g} %" if is_rule else f"at most {target:g}"
    fairness.axhline(target, color=GREY, linestyle="--", linewidth=1, label=f"wanted: {wanted}")
    fairness.set_ylim(0, 102 if is_rule else None)
    if is_rule:
        fairness.yaxis.set_major_formatter("{x:g} %")
    for panel in (accuracy, fairness):
        panel.set_xlim(0, rounds[-1])
    fairness.legend(frameon=False, fontsize=8, loc="lower right" if is_rule else "upper right")
    tidy(accuracy, f"{subject}: on validation rows", "", "accuracy")
    tidy(fairness, "", "round of the game", "p-rule" if is_rule else measure.replace("_", " "))
    return figure


def groups_of(
    stages: Mapping[str, tuple[Scored, Tensor]], rows: Sequence[Mapping[str, Any]], number: int, attribute: Attribute,
    subject: str,
) -> Figure:  # fmt: skip
    """Rates of each group before and after debiasing, with intervals, and a reliability diagram of each stage.

    `stages` hold the decisions of each stage and the probabilities of the favourable class, [N]; `rows` are those of
    groups.csv, and `number` is the index of the attribute among the sensitive ones.
    """
    own = [row for row in rows if row["attribute"] == attribute.name]
    groups = list(dict.fromkeys(row["group"] for row in own))
    figure = Figure(figsize=(10, 5.6 + 0.5 * len(groups)), dpi=150, layout="constrained")
    grid = figure.add_gridspec(2, 2 * len(RATES), height_ratios=[0.8 + 0.32 * len(groups), 4.2])
    for column, rate in enumerate(RATES):
        panel = figure.add_subplot(grid[0, 2 * column : 2 * column + 2])
        rate_panel(panel, own, groups, rate)
        if column:
            panel.set_yticklabels([])
    figure.axes[0].legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.22), ncols=2)
    for column, (stage, (scored, probability)) in enumerate(stages.items()):
        panel = figure.add_subplot(grid[1, len(RATES) * column : len(RATES) * (column + 1)])
        for row in (row for row in own if row["stage"] == stage):
            index = attribute.groups.index(row["group"])
            here = scored.sensitive[:, number] == index
            counts = counts_in_bins(probability[here], scored.labels[here] == 1, CALIBRATION_BINS)
            label = f"{row['group']}: ECE {in_percent(row['ece'])} (calibrated: {in_percent(row['ece_null'])})"
            reliability_points(panel, *counts, color=COLORS[index % len(COLORS)], line="-", label=label)
        panel.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15))
        tidy(panel, f"{stage}: calibration", "predicted probability", "" if column else "share of the favourable label")
    figure.suptitle(f"{subject}: by {attribute.name}, n = {len(scored.labels):,}, 95 % intervals", fontsize=11)
    return figure


def rate_panel(panel: Axes, rows: Sequence[Mapping[str, Any]], groups: Sequence[str], rate: str) -> None:
    """One rate of each group, a line for each group and a mark with its interval for each stage."""
    for stage, offset, color, marker in (("baseline", -0.14, GREY, "o"), ("debiased", 0.14, "black", "s")):
        own = [row for row in rows if row["stage"] == stage]
        values = [row[rate] for row in own]
        ends = [[row[rate] - row[f"{rate}_ci_low"] for row in own], [row[f"{rate}_ci_high"] - row[rate] for row in own]]
        at = [groups.index(row["group"]) + offset for row in own]
        panel.errorbar(
            values, at, xerr=ends, color=color, marker=marker, markersize=4, capsize=2, linestyle="none", label=stage
        )
    panel.set_xlim(0, 1)
    panel.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    panel.set_yticks(range(len(groups)), groups, fontsize=9)
    panel.set_ylim(len(groups) - 0.5, -0.5)
    tidy(panel, "", "", "")
    panel.set_title(rate.replace("_", " "), fontsize=9)
