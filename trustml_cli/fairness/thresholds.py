"""A threshold for each group, so that all of them are selected at one rate: demographic parity.

Of all rules with demographic parity the one that is right most often has such thresholds (Corbett-Davies, Pierson,
Feller, Goel and Huq 2017, arXiv 1701.08230). For equalized odds, see `equalized_odds.py`. Both need everyone's group at
the moment of the decision, which the other methods do not, and which may not be known or may not be used.
"""

import torch
from torch import Tensor


def parity_thresholds(scores: Tensor, labels: Tensor, group: Tensor) -> dict[int, float]:
    """The threshold of each group: all are selected at the one rate that is right most often on these rows.

    Scores are float [N], labels 0 or 1 [N], groups int64 [N] by any numbers. A row is selected where its score is
    above its group's threshold. Rates in steps of one percent are tried.
    """
    best: dict[int, float] = {}
    most_right = -1
    numbers = torch.unique(group).tolist()
    for percent in range(101):
        cuts = {number: cut(scores[group == number], percent / 100) for number in numbers}
        right = int(((shifted(scores, group, cuts) > 0) == (labels == 1)).sum())
        if right > most_right:
            best, most_right = cuts, right
    return best


def cut(scores: Tensor, rate: float) -> float:
    """A threshold that the share `rate` of the scores, to the nearest row, lies above."""
    selected = round(rate * len(scores))
    ranked = scores.double().sort(descending=True).values
    above = ranked[selected - 1] if selected > 0 else ranked[0] + 2
    below = ranked[selected] if selected < len(ranked) else ranked[-1] - 2
    return float((above + below) / 2)


def shifted(scores: Tensor, group: Tensor, thresholds: dict[int, float]) -> Tensor:
    """Scores [N] less the thresholds of their groups: above zero where a row is selected. Unknown groups stay."""
    cuts = torch.zeros(len(scores), dtype=torch.float64)
    for number, threshold in thresholds.items():
        cuts[group == number] = threshold
    return scores.double() - cuts
