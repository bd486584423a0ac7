"""A threshold for each group, such that all groups have the same selection rate, or the same true-positive rate.

The first is demographic parity; of all rules with it, the most accurate one has this form (Corbett-Davies, Pierson,
Feller, Goel and Huq 2017, arXiv 1701.08230). The second is equal opportunity (Hardt, Price and Srebro 2016, arXiv
1610.02413). For equalized odds, see `equalized_odds.py`. Thresholds by group, unlike the other methods, need the group
of each person at prediction time, which may be unknown or not permitted.
"""

import torch
from torch import Tensor


def parity_thresholds(scores: Tensor, labels: Tensor, group: Tensor, counted: Tensor) -> dict[int, float]:
    """The threshold of each group at the common selection rate with the highest accuracy on these rows.

    Scores are float [N], labels 0 or 1 [N], groups int64 [N] with any values. A row is selected where its score is
    above its group's threshold. Selection rates are over the `counted` rows, bool [N], of which every group needs one:
    all rows for demographic parity, those of the label 1 for equal opportunity. Rates are searched in steps of one
    percent.
    """
    best: dict[int, float] = {}
    most_right = -1
    numbers = torch.unique(group).tolist()
    for percent in range(101):
        cuts = {number: cut(scores[group == number], counted[group == number], percent / 100) for number in numbers}
        right = int(((shifted(scores, group, cuts) > 0) == (labels == 1)).sum())
        if right > most_right:
            best, most_right = cuts, right
    return best


def cut(scores: Tensor, counted: Tensor, rate: float) -> float:
    """A threshold that the share `rate` of the `counted` scores, rounded to whole rows, exceeds.

    It lies half way between the last of these and the next score, counted or not: as high as it can.
    """
    selected = round(rate * int(counted.sum()))
    order = scores.double().argsort(descending=True, stable=True)
    ranked = scores.double()[order]
    last = int(counted[order].nonzero()[selected - 1]) if selected else -1
    above = ranked[last] if selected else ranked[0] + 2
    below = ranked[last + 1] if last + 1 < len(ranked) else ranked[-1] - 2
    return float((above + below) / 2)


def shifted(scores: Tensor, group: Tensor, thresholds: dict[int, float]) -> Tensor:
    """Scores [N] minus the thresholds of their groups: above 0 where a row is selected. Other groups are unchanged."""
    cuts = torch.zeros(len(scores), dtype=torch.float64)
    for number, threshold in thresholds.items():
        cuts[group == number] = threshold
    return scores.double() - cuts
