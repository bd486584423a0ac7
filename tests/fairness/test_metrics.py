"""Fairness metrics against numbers worked out by hand and against fairlearn."""

from math import isnan

import pytest
import torch
from torch import Tensor

from trustml_cli.fairness.metrics import (
    demographic_parity_difference,
    equalized_odds_difference,
    p_rule,
    selection_rates,
    without_rate,
)

# group 0: 2 of 4 selected, group 1: 3 of 4
SELECTED = torch.tensor([1, 1, 0, 0, 1, 1, 1, 0]).bool()
GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
LABELS = torch.tensor([1, 0, 1, 1, 1, 1, 0, 0])


def test_numbers_worked_out_by_hand() -> None:
    assert selection_rates(SELECTED, GROUP).tolist() == [0.5, 0.75]
    assert p_rule(SELECTED, GROUP) == pytest.approx(100 * 2 / 3, abs=1e-12)
    assert demographic_parity_difference(SELECTED, GROUP) == 0.25
    # true-positive rates 1/3 and 2/2, false-positive rates 1/1 and 1/2
    assert equalized_odds_difference(SELECTED, LABELS, GROUP) == pytest.approx(2 / 3, abs=1e-12)
    assert equalized_odds_difference(SELECTED, 1 - LABELS, GROUP) == pytest.approx(2 / 3, abs=1e-12)


def test_groups_that_are_treated_alike() -> None:
    alike = torch.tensor([1, 0, 1, 0, 0, 1, 0, 1]).bool()
    assert p_rule(alike, GROUP) == 100
    assert demographic_parity_difference(alike, GROUP) == 0


def test_the_groups_furthest_apart_count_and_empty_ones_do_not() -> None:
    group = torch.tensor([0, 0, 4, 4, 4, 4, 9, 9])  # 2 of 2, 2 of 4, 1 of 2
    assert p_rule(SELECTED, group) == 50
    assert demographic_parity_difference(SELECTED, group) == 0.5


def test_of_a_decision_that_selects_nobody_the_p_rule_is_not_known() -> None:
    assert isnan(p_rule(torch.zeros(8).bool(), GROUP))
    assert p_rule(torch.tensor([1, 1, 0, 0, 0, 0, 0, 0]).bool(), GROUP) == 0


def test_what_cannot_be_compared_is_not_called_equal() -> None:
    # the first group has no positives: of the true-positive rates there is one alone
    labels, group = torch.tensor([0, 0, 0, 1, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 1])
    selected = torch.tensor([1, 0, 0, 1, 0, 0]).bool()
    assert isnan(equalized_odds_difference(selected, labels, group))
    assert without_rate(labels, group) == [(0, 1)]
    assert without_rate(LABELS, GROUP) == []
    # with a third group that has some, the two that can be compared are: true positives 1/2 and 1/1
    labels, group = torch.cat([labels, torch.tensor([1, 0])]), torch.cat([group, torch.tensor([2, 2])])
    selected = torch.cat([selected, torch.tensor([1, 0]).bool()])
    assert equalized_odds_difference(selected, labels, group) == 0.5
    assert isnan(equalized_odds_difference(SELECTED, torch.ones(8).long(), GROUP))  # no false-positive rate at all
    alone = torch.zeros(8).long()
    for value in (p_rule(SELECTED, alone), demographic_parity_difference(SELECTED, alone)):
        assert isnan(value)


@pytest.mark.peers
def test_fairlearn_takes_a_rate_of_no_rows_for_zero_and_we_for_unknown() -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    labels, group = torch.tensor([0, 0, 0, 1, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 1])
    selected = torch.tensor([0, 0, 0, 1, 1, 0])
    theirs = fairlearn.equalized_odds_difference(
        y_true=labels.numpy(), y_pred=selected.numpy(), sensitive_features=group.numpy()
    )
    assert theirs == 1.0
    assert isnan(equalized_odds_difference(selected.bool(), labels, group))


def people(groups: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    group = torch.randint(groups, (997,), generator=random)
    labels = (torch.rand(997, generator=random) < 0.2 + 0.1 * group).long()
    selected = torch.rand(997, generator=random) < 0.3 + 0.2 * labels + 0.05 * group
    return selected, labels, group


@pytest.mark.peers
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_metrics_equal_those_of_fairlearn(groups: int, seed: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    selected, labels, group = people(groups, seed)
    arguments = {"y_true": labels.numpy(), "y_pred": selected.long().numpy(), "sensitive_features": group.numpy()}
    close = {"abs": 1e-9, "rel": 0}
    ratio = fairlearn.demographic_parity_ratio(**arguments)
    assert p_rule(selected, group) == pytest.approx(100 * ratio, abs=1e-7, rel=0)  # in percent
    assert p_rule(selected, group) / 100 == pytest.approx(ratio, **close)
    difference = fairlearn.demographic_parity_difference(**arguments)
    assert demographic_parity_difference(selected, group) == pytest.approx(difference, **close)
    odds = fairlearn.equalized_odds_difference(**arguments)
    assert equalized_odds_difference(selected, labels, group) == pytest.approx(odds, **close)
    assert min(difference, odds) > 0.01
