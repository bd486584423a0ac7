"""Plots of PATE: the votes of the teachers, and the privacy cost of the answers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.style import BLUE, GREY, ORANGE, new_figure, tidy


def vote_histogram(top: Tensor, given: Tensor, teachers: int, threshold: float, subject: str) -> Figure:
    """How many queries have how many votes for their top class [Q]; those with a given answer, bool [Q], are blue."""
    figure, axes = new_figure(6.4, 4.0)
    panel = axes[0, 0]
    edges = np.linspace(0, teachers, min(teachers, 50) + 1)
    kinds = [top[given].numpy(), top[~given].numpy()]
    labels = [f"answered: {len(kinds[0]):,}", f"not answered: {len(kinds[1]):,}"]
    panel.hist(kinds, bins=edges.tolist(), stacked=True, color=[BLUE, "#BBBBBB"], label=labels)
    panel.axvline(threshold, color=ORANGE, linestyle="--", label=f"threshold {threshold:g}, before the noise")
    panel.set_xlim(0, teachers)
    tidy(panel, f"{subject}: {teachers:,} teachers", "votes for the top class", "queries")
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def cost_over_answers(
    answers: Sequence[float],
    worst: Sequence[float],
    dependent: Sequence[float],
    promised: float,
    delta: float,
    subject: str,
) -> Figure:
    """ε after each query over the number of answers so far, whatever the votes are, and given the votes.

    `promised` is the ε with as many answers as are allowed.
    """
    figure, axes = new_figure(6.4, 4.0)
    panel = axes[0, 0]
    panel.plot(answers, worst, color=GREY, linestyle="--", label=f"whatever the votes are: {worst[-1]:.2f}")
    panel.axhline(promised, color=GREY, linewidth=0.8, label=f"the same, with all answers allowed: {promised:.2f}")
    panel.plot(answers, dependent, color=BLUE, label=f"given the votes (secret): {dependent[-1]:.2f}")
    panel.set_xlim(left=0)
    panel.set_ylim(bottom=0)
    tidy(panel, subject, "answers", f"ε, δ = {delta:g}")
    panel.legend(frameon=False, fontsize=8)
    return figure
