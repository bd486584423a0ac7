"""Plots of predictions by group before and after debiasing, and of the debiasing game."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from trustml_cli.data.table import Attribute
from trustml_cli.fairness.measure import Point, Scored
from trustml_cli.fairness.metrics import p_rule
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, logarithmic, new_figure, tidy

COLORS = [ORANGE, BLUE, GREEN, GREY, "#B0578D", "#8A6D00"]
BINS = 40


def densities(
    before: Scored, after: Scored, number: int, attribute: Attribute, subject: str, aucs: Sequence[float]
) -> Figure:
    """Densities of the predicted probability of the favourable class in each group, before and after debiasing.

    `number` is the index of the attribute among the sensitive ones; `subject` names the model and the method. `aucs`
    are the AUCs of the adversary that guesses the group from the prediction, before and after.
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
                label=f"{label}: {rate:.1%} selected",
            )  # fmt: skip
        panel.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
        panel.set_xlim(0, 1)
        logarithmic(panel.yaxis)
        panel.legend(frameon=False, fontsize=8, loc="upper right")
        rule = p_rule(scored.selected, group)
        title = f"{stage}: accuracy {scored.accuracy:.1%}, p-rule {rule:.0f} %\nadversary's AUC {auc:.2f}"
        tidy(panel, title, "predicted probability", "density (log scale)")
    figure.suptitle(f"{subject}: by {attribute.name}, {len(before.labels):,} test rows", fontsize=11)
    return figure


def training_path(path: Sequence[Point], names: Sequence[str], target: float, subject: str) -> Figure:
    """Accuracy and p-rules on validation rows over the rounds of the game."""
    figure, axes = new_figure(6.8, 5.2, rows=2)
    accuracy, rules = axes[:, 0]
    rounds = [point.round for point in path]
    accuracy.plot(rounds, [point.accuracy for point in path], color=BLUE)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for number, name in enumerate(names):
        color = COLORS[number % len(COLORS)]
        rules.plot(rounds, [point.p_rules[number] for point in path], color=color, label=name)
    rules.axhline(target, color=GREY, linestyle="--", linewidth=1, label=f"wanted: {target:g} %")
    rules.set_ylim(0, 102)
    rules.yaxis.set_major_formatter(PercentFormatter(100))
    for panel in (accuracy, rules):
        panel.set_xlim(0, rounds[-1])
    rules.legend(frameon=False, fontsize=8, loc="lower right")
    tidy(accuracy, f"{subject}: on validation rows", "", "accuracy")
    tidy(rules, "", "round of the game", "p-rule")
    return figure
