"""Group fairness metrics: how differently decisions treat the groups of one sensitive attribute.

Every function takes decisions, bool [N], and each row's group, int64 [N], with any values; groups without rows are
ignored. With more than two groups, the two that are furthest apart are compared. With fewer than two the result is
nan.
"""

from math import isnan, nan

import torch
from torch import Tensor


def selection_rates(selected: Tensor, group: Tensor) -> Tensor:
    """The share of `selected` rows in each group that has rows, float64 [G], in [0, 1]."""
    rates = [selected[group == number].double().mean() for number in torch.unique(group)]
    return torch.stack(rates) if rates else torch.empty(0, dtype=torch.float64)


def p_rule(selected: Tensor, group: Tensor) -> float:
    """The lowest selection rate in percent of the highest one, in [0, 100]; nan where nobody is selected.

    100 is demographic parity. US authorities regard less than 80 as adverse impact ("four-fifths rule", 29 CFR 1607.4).
    """
    rates = selection_rates(selected, group)
    return float(100 * rates.min() / rates.max()) if len(rates) > 1 else nan


def demographic_parity_difference(selected: Tensor, group: Tensor) -> float:
    """The highest selection rate minus the lowest one, in [0, 1]; 0 is demographic parity."""
    rates = selection_rates(selected, group)
    return float(rates.max() - rates.min()) if len(rates) > 1 else nan


def equalized_odds_difference(selected: Tensor, labels: Tensor, group: Tensor) -> float:
    """The larger of the differences in true-positive and in false-positive rates between groups, in [0, 1].

    `labels` are 1 for the favourable class and 0 for the other, [N]. 0 means equalized odds (Hardt et al. 2016, arXiv
    1610.02413). A rate is undefined for a group without rows of that class (see `without_rate`), and the group is left
    out for it; nan where fewer than two groups have one of the two rates, because that difference is then unknown.
    """
    both = [demographic_parity_difference(selected[labels == truth], group[labels == truth]) for truth in (0, 1)]
    return nan if any(map(isnan, both)) else max(both)


def equal_opportunity_difference(selected: Tensor, labels: Tensor, group: Tensor) -> float:
    """The difference in true-positive rates between groups, in [0, 1]; 0 is equal opportunity (Hardt et al. 2016).

    Groups without rows of the favourable class are left out; nan where fewer than two are left.
    """
    return demographic_parity_difference(selected[labels == 1], group[labels == 1])


def group_metrics(selected: Tensor, labels: Tensor, group: Tensor) -> dict[str, float]:
    """All metrics of this module by name, for decisions, labels and groups [N]."""
    return {
        "p_rule": p_rule(selected, group),
        "demographic_parity_difference": demographic_parity_difference(selected, group),
        "equalized_odds_difference": equalized_odds_difference(selected, labels, group),
        "equal_opportunity_difference": equal_opportunity_difference(selected, labels, group),
    }


def without_rate(labels: Tensor, group: Tensor) -> list[tuple[int, int]]:
    """Every (group, label) without rows, among the groups that have rows: the corresponding rate is undefined."""
    return [
        (number, truth)
        for number in torch.unique(group).tolist()
        for truth in (0, 1)
        if not ((group == number) & (labels == truth)).any()
    ]
