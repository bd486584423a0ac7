"""What stages are judged by: areas against scikit-learn, and intervals against drawing rows."""

from collections.abc import Callable
from math import isnan

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from trustml_cli.fairness.measure import (
    Scored,
    adversary_aucs,
    area,
    area_interval,
    group_intervals,
    lowest_p_rule_interval,
)
from trustml_cli.fairness.metrics import demographic_parity_difference, equalized_odds_difference, p_rule


def test_decisions_and_their_quality_by_hand() -> None:
    scored = Scored(torch.tensor([1.0, -1.0, 3.0, 0.0]), torch.tensor([1, 0, 0, 1]), torch.tensor([[0], [0], [1], [1]]))
    assert scored.selected.tolist() == [True, False, True, False]
    assert scored.accuracy == 0.5
    assert scored.p_rules == [100.0]
    assert scored.roc_auc == 0.5  # of the pairs (1, −1), (1, 3), (0, −1), (0, 3), two are in order
    assert scored.probability[3] == 0.5


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_areas_are_scikit_learn_s_one_against_the_rest(groups: int) -> None:
    random = torch.Generator().manual_seed(groups)
    group = torch.randint(groups, (500,), generator=random)
    guess = torch.randn(500, groups, generator=random)
    guess[torch.arange(500), group] += 0.7
    likely = guess.double().softmax(1)
    shown = likely[:, 1] if groups == 2 else likely
    expected = roc_auc_score(group.numpy(), shown.numpy(), multi_class="ovr")
    assert adversary_aucs([likely], group[:, None]) == pytest.approx([expected], abs=1e-9)
    assert expected > 0.6


def test_without_both_classes_there_is_no_area() -> None:
    assert isnan(area(torch.ones(3).bool(), torch.rand(3)))


def people() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    group = (torch.rand(800, generator=random) < 0.2).long()
    labels = (torch.rand(800, generator=random) < 0.5).long()
    rate = torch.where(group == 1, 0.25, 0.45) + 0.2 * labels
    return torch.rand(800, generator=random) < rate, labels, group


def test_intervals_of_groups_are_those_of_drawing_rows_again() -> None:
    selected, labels, group = people()
    found = group_intervals(selected, labels, group, seed=0)
    draws = torch.randint(800, (1000, 800), generator=torch.Generator().manual_seed(1))
    measures: dict[str, Callable[[Tensor], float]] = {
        "p_rule": lambda rows: p_rule(selected[rows], group[rows]),
        "demographic_parity_difference": lambda rows: demographic_parity_difference(selected[rows], group[rows]),
        "equalized_odds_difference": lambda rows: equalized_odds_difference(selected[rows], labels[rows], group[rows]),
    }
    for name, measure in measures.items():
        expected = np.quantile([measure(rows) for rows in draws], [0.025, 0.975])
        width = expected[1] - expected[0]
        assert found[name] == pytest.approx(tuple(expected), abs=0.12 * width), name
        assert found[name][0] < measure(torch.arange(800)) < found[name][1]
    assert isnan(group_intervals(torch.zeros(800).bool(), labels, group, seed=0)["p_rule"][0])


def test_the_interval_of_the_lowest_p_rule_is_that_of_drawing_rows_again() -> None:
    selected, labels, group = people()
    sensitive = torch.column_stack((group, labels))
    found = lowest_p_rule_interval(selected, sensitive, seed=0)
    draws = torch.randint(800, (1000, 800), generator=torch.Generator().manual_seed(1))
    lowest = [min(p_rule(selected[rows], own[rows]) for own in sensitive.T) for rows in draws]
    expected = np.quantile(lowest, [0.025, 0.975])
    assert found == pytest.approx(tuple(expected), abs=0.12 * (expected[1] - expected[0]))
    alone = lowest_p_rule_interval(selected, group[:, None], seed=0)
    assert alone == pytest.approx(group_intervals(selected, labels, group, seed=0)["p_rule"], abs=1)
    assert isnan(lowest_p_rule_interval(torch.zeros(800).bool(), sensitive, seed=0)[0])


@pytest.mark.parametrize("groups", [2, 3])
def test_the_interval_of_an_area_is_that_of_drawing_the_rows_of_each_group_again(groups: int) -> None:
    random = torch.Generator().manual_seed(groups)
    group = torch.randint(groups, (150,), generator=random)
    likely = torch.randn(150, groups, generator=random).double()
    likely[torch.arange(150), group] += 0.8
    likely = likely.softmax(1)
    low, high = area_interval(likely, group, seed=0)
    places = [np.flatnonzero(group.numpy() == number) for number in range(groups)]
    choose = np.random.default_rng(0)
    draws = []
    for _ in range(150):
        rows = torch.from_numpy(np.concatenate([choose.choice(own, len(own)) for own in places]))
        draws += adversary_aucs([likely[rows]], group[rows][:, None])
    expected = np.quantile(draws, [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.2 * (expected[1] - expected[0]))
