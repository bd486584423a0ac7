"""A threshold for each group, such that all groups have the same selection rate: demographic parity.

Of all rules with demographic parity, the most accurate one has this form (Corbett-Davies, Pierson, Feller, Goel and
Huq 2017, arXiv 1701.08230). For equalized odds, see `equalized_odds.py`. Both methods, unlike the others, need the
group of each person at prediction time, which may be unknown or not permitted.
"""

import torch
from torch import Tensor


def parity_thresholds(scores: Tensor, labels: Tensor, group: Tensor) -> dict[int, float]:
    """The threshold of each group at the common selection rate with the highest accuracy on these rows.

    Scores are float [N], labels 0 or 1 [N], groups int64 [N] with any values. A row is selected where its score is
    above its group's threshold. Rates are searched in steps of one percent.
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
    """A threshold that the share `rate` of the scores, rounded to whole rows, exceeds."""
    selected = round(rate * len(scores))
    ranked = scores.double().sort(descending=True).values
    above = ranked[selected - 1] if selected > 0 else ranked[0] + 2
    below = ranked[selected] if selected < len(ranked) else ranked[-1] - 2
    return float((above + below) / 2)


def shifted(scores: Tensor, group: Tensor, thresholds: dict[int, float]) -> Tensor:
    """Scores [N] minus the thresholds of their groups: above 0 where a row is selected. Other groups are unchanged."""
    cuts = torch.zeros(len(scores), dtype=torch.float64)
    for number, threshold in thresholds.items():
        cuts[group == number] = threshold
    return scores.double() - cuts
