"""What stages are judged by: areas against scikit-learn, and intervals against drawing rows."""

from math import isnan

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from trustml_cli.fairness.measure import Scored, adversary_aucs, area, p_rule_interval
from trustml_cli.fairness.metrics import p_rule


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
    likely = guess.double().softmax(1).numpy()
    expected = roc_auc_score(group.numpy(), likely[:, 1] if groups == 2 else likely, multi_class="ovr")
    assert adversary_aucs([guess], group[:, None]) == pytest.approx([expected], abs=1e-9)
    assert expected > 0.6


def test_without_both_classes_there_is_no_area() -> None:
    assert isnan(area(torch.ones(3).bool(), torch.rand(3)))


def test_the_interval_is_that_of_drawing_rows_again() -> None:
    random = torch.Generator().manual_seed(0)
    group = (torch.rand(800, generator=random) < 0.2).long()
    selected = torch.rand(800, generator=random) < torch.where(group == 1, 0.25, 0.45)
    draws = torch.randint(800, (2000, 800), generator=random)
    expected = np.quantile([p_rule(selected[rows], group[rows]) for rows in draws], [0.025, 0.975])
    low, high = p_rule_interval(selected, group, seed=0)
    assert (low, high) == pytest.approx(tuple(expected), abs=2.5)
    assert low < p_rule(selected, group) < high
    assert high - low > 10
    assert isnan(p_rule_interval(torch.zeros(800).bool(), group, seed=0)[0])
