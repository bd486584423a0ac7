"""Thresholds per group against numbers worked out by hand, and against trying everything."""

from itertools import product

import pytest
import torch
from torch import Tensor

from tests.fairness.peers import Scores
from trustml_cli.fairness.metrics import equal_opportunity_difference, selection_rates
from trustml_cli.fairness.thresholds import cut, parity_thresholds, shifted


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.0, 4.0), (0.25, 2.5), (0.5, 1.5), (0.75, 0.0), (1.0, -2.0), (0.3, 2.5)]
)
def test_a_cut_lies_half_way_between_the_last_selected_score_and_the_next(rate: float, expected: float) -> None:
    every = torch.ones(4).bool()
    assert cut(torch.tensor([2.0, -1.0, 3.0, 1.0]), every, rate) == expected


def test_a_cut_by_some_of_the_scores_is_as_high_as_it_can_be() -> None:
    counted = torch.tensor([True, True, False, True])
    assert cut(torch.tensor([2.0, -1.0, 1.0, 3.0]), counted, 2 / 3) == 1.5  # not half way to -1


def test_thresholds_worked_out_by_hand() -> None:
    # at one half selected in both groups, all four of the favourable class are, and nobody else
    scores = torch.tensor([0.9, 0.8, 0.3, 0.2, 0.5, 0.4, 0.1, 0.0])
    labels = torch.tensor([1, 1, 0, 0, 1, 1, 0, 0])
    group = torch.tensor([0, 0, 0, 0, 7, 7, 7, 7])
    cuts = parity_thresholds(scores, labels, group, torch.ones(8).bool())
    assert cuts == {0: pytest.approx(0.55), 7: pytest.approx(0.25)}
    assert (shifted(scores, group, cuts) > 0).tolist() == [bool(label) for label in labels]


@pytest.mark.parametrize("positives", [False, True])
def test_rates_are_equal_and_no_better_pair_of_thresholds_has_equal_rates(positives: bool) -> None:
    """Selection rates of all rows, or those of the positive ones: true-positive rates."""
    scores, labels, group = people()
    counted = (labels == 1) | (not positives)
    selected = shifted(scores, group, parity_thresholds(scores, labels, group, counted)) > 0
    rates = selection_rates(selected[counted], group[counted])
    assert rates[0] == rates[1]
    right = int((selected == (labels == 1)).sum())
    cuts = [cut(scores, torch.ones(80).bool(), rate / 80) for rate in range(81)]
    best = {True: 0, False: 0}
    for low, high in product(cuts, cuts):
        other = scores > torch.where(group == 1, high, low)
        equal = torch.equal(*selection_rates(other[counted], group[counted]))
        best[equal] = max(best[equal], int((other == (labels == 1)).sum()))
    assert best[True] <= right < best[False]  # parity costs something here


def people() -> tuple[Tensor, Tensor, Tensor]:
    """40 rows of each of two groups, 20 of them positive; group 1 has the higher scores."""
    random = torch.Generator().manual_seed(0)
    group, labels = torch.arange(80) % 2, torch.arange(80) // 2 % 2
    return torch.randn(80, generator=random) + 0.8 * group + labels, labels, group


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_fairlearn_finds_no_better_thresholds_for_equal_opportunity() -> None:
    postprocessing = pytest.importorskip("fairlearn.postprocessing")
    scores, labels, group = (part.repeat(10) for part in people())
    scores += 0.3 * torch.randn(800, generator=torch.Generator().manual_seed(1))
    peer = postprocessing.ThresholdOptimizer(
        estimator=Scores(), constraints="true_positive_rate_parity", prefit=True, predict_method="predict_proba",
        grid_size=1000,
    )  # fmt: skip
    features = scores.double().sigmoid().numpy()[:, None]
    peer.fit(features, labels.numpy(), sensitive_features=group.numpy())
    theirs = torch.from_numpy(peer._pmf_predict(features, sensitive_features=group.numpy())[:, 1])
    ours = (shifted(scores, group, parity_thresholds(scores, labels, group, labels == 1)) > 0).double()
    right = [(chance * labels + (1 - chance) * (1 - labels)).mean().item() for chance in (ours, theirs)]
    assert right[0] == pytest.approx(right[1], abs=0.01)  # they draw between two thresholds, and miss no rate
    assert (ours - theirs).abs().mean() < 0.05
    metrics = pytest.importorskip("fairlearn.metrics")
    known = {"y_true": labels, "y_pred": ours, "sensitive_features": group.numpy()}
    assert equal_opportunity_difference(ours == 1, labels, group) == metrics.equal_opportunity_difference(**known)


def test_a_group_that_was_not_seen_keeps_its_scores() -> None:
    scores = torch.tensor([1.0, 2.0])
    assert shifted(scores, torch.tensor([0, 3]), {0: 0.5}).tolist() == [0.5, 2.0]
