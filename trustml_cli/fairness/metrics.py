"""How differently a classifier's decisions treat the groups of one sensitive attribute.

Every function takes decisions, bool [N], and each row's group, int64 [N], by any numbers; groups without rows do not
count. With more than two groups, the two that are furthest apart count.
"""

import torch
from torch import Tensor


def selection_rates(selected: Tensor, group: Tensor) -> Tensor:
    """The share of `selected` rows in each group that has rows, float64 [G], in [0, 1]."""
    return torch.stack([selected[group == number].double().mean() for number in torch.unique(group)])


def p_rule(selected: Tensor, group: Tensor) -> float:
    """The lowest selection rate in percent of the highest one, in [0, 100]; nan where nobody is selected.

    100 is demographic parity. Below 80, US authorities see adverse impact ("four-fifths rule", 29 CFR 1607.4).
    """
    rates = selection_rates(selected, group)
    return float(100 * rates.min() / rates.max())


def demographic_parity_difference(selected: Tensor, group: Tensor) -> float:
    """The highest selection rate less the lowest one, in [0, 1]; 0 is demographic parity."""
    rates = selection_rates(selected, group)
    return float(rates.max() - rates.min())


def equalized_odds_difference(selected: Tensor, labels: Tensor, group: Tensor) -> float:
    """The difference of the groups' true-positive or of their false-positive rates, whichever is larger, in [0, 1].

    `labels` are 1 for the favourable class and 0 for the other, [N]. 0 are equalized odds (Hardt et al. 2016, arXiv
    1610.02413). A group without a row of a class has no such rate and does not count in it.
    """
    return max(
        demographic_parity_difference(selected[labels == truth], group[labels == truth])
        for truth in (0, 1)
        if (labels == truth).any()
    )
