"""Thresholds per group against numbers worked out by hand, and against trying everything."""

from itertools import product

import pytest
import torch

from trustml_cli.fairness.metrics import selection_rates
from trustml_cli.fairness.thresholds import cut, parity_thresholds, shifted


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.0, 4.0), (0.25, 2.5), (0.5, 1.5), (0.75, 0.0), (1.0, -2.0), (0.3, 2.5)]
)
def test_a_cut_lies_half_way_between_the_last_selected_score_and_the_next(rate: float, expected: float) -> None:
    assert cut(torch.tensor([2.0, -1.0, 3.0, 1.0]), rate) == expected


def test_thresholds_worked_out_by_hand() -> None:
    # at one half selected in both groups, all four of the favourable class are, and nobody else
    scores = torch.tensor([0.9, 0.8, 0.3, 0.2, 0.5, 0.4, 0.1, 0.0])
    labels = torch.tensor([1, 1, 0, 0, 1, 1, 0, 0])
    group = torch.tensor([0, 0, 0, 0, 7, 7, 7, 7])
    cuts = parity_thresholds(scores, labels, group)
    assert cuts == {0: pytest.approx(0.55), 7: pytest.approx(0.25)}
    assert (shifted(scores, group, cuts) > 0).tolist() == [bool(label) for label in labels]


def test_rates_are_equal_and_no_better_pair_of_thresholds_has_equal_rates() -> None:
    random = torch.Generator().manual_seed(0)
    group = torch.arange(80) % 2
    scores = torch.randn(80, generator=random) + 0.8 * group
    labels = (scores + torch.randn(80, generator=random) > 0.5).long()
    selected = shifted(scores, group, parity_thresholds(scores, labels, group)) > 0
    rates = selection_rates(selected, group)
    assert rates[0] == rates[1]
    right = int((selected == (labels == 1)).sum())
    assert right < int(((scores > 0.5) == (labels == 1)).sum())  # parity costs something here
    cuts = [cut(scores, rate / 80) for rate in range(81)]
    for low, high in product(cuts, cuts):
        other = scores > torch.where(group == 1, high, low)
        if torch.equal(*selection_rates(other, group)):
            assert int((other == (labels == 1)).sum()) <= right


def test_a_group_that_was_not_seen_keeps_its_scores() -> None:
    scores = torch.tensor([1.0, 2.0])
    assert shifted(scores, torch.tensor([0, 3]), {0: 0.5}).tolist() == [0.5, 2.0]
