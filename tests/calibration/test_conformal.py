"""Conformal sets by hand, and their promise on simulated images."""

from math import inf

import pytest
import torch
from scipy.stats import betabinom

from trustml_cli.calibration.aps import AdaptiveSets
from trustml_cli.calibration.conformal import Conformal, expected_coverage, mass_before
from trustml_cli.calibration.lac import LeastAmbiguous
from trustml_cli.calibration.raps import RegularizedSets

LAC, APS, RAPS = LeastAmbiguous(), AdaptiveSets(), RegularizedSets(penalty=0.1, free=1)
PROBABILITY = torch.tensor([[0.3, 0.5, 0.2], [0.1, 0.1, 0.8]]).double()
RANDOM = torch.tensor([0.5, 1.0]).double()


def test_the_mass_before_a_class_is_that_of_all_more_probable_ones() -> None:
    before, rank = mass_before(PROBABILITY)
    torch.testing.assert_close(before, torch.tensor([[0.5, 0.0, 0.8], [0.8, 0.9, 0.0]]).double())
    assert rank.tolist() == [[2, 1, 3], [2, 3, 1]]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (LAC, [[0.7, 0.5, 0.8], [0.9, 0.9, 0.2]]),
        (APS, [[0.65, 0.25, 0.9], [0.9, 1.0, 0.8]]),
        (RAPS, [[0.75, 0.25, 1.1], [1.0, 1.2, 0.8]]),
    ],
    ids=["lac", "aps", "raps"],
)
def test_scores_are_those_by_hand(method: Conformal, expected: list[list[float]]) -> None:
    torch.testing.assert_close(method.scores(PROBABILITY, RANDOM), torch.tensor(expected).double())
    assert method.sets(PROBABILITY, RANDOM, 0.7).tolist() == [[score <= 0.7 for score in row] for row in expected]


def test_the_threshold_is_a_score_further_up_than_the_quantile() -> None:
    probability = torch.linspace(0.01, 0.99, 99).double()
    both = torch.stack([probability, 1 - probability], 1)
    labels, random = torch.zeros(99, dtype=torch.long), torch.zeros(99).double()
    # scores are 0.01 to 0.99: the ⌈100 · 0.9⌉-th smallest
    assert LAC.threshold(both, labels, random, 0.9) == pytest.approx(0.90)
    assert LAC.threshold(both, labels, random, 0.55) == pytest.approx(0.55)  # 100 · 0.55 is 55.00000000000001
    assert LAC.threshold(both, labels, random, 0.991) == inf


@pytest.mark.parametrize("method", [LAC, APS, RAPS], ids=["lac", "aps", "raps"])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_sets_hold_the_right_class_as_often_as_promised_however_bad_the_probabilities(
    method: Conformal, sharpness: float
) -> None:
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(6000, 8, generator=random).double()
    labels = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    probability, draws = (sharpness * logits).softmax(1), torch.rand(6000, generator=random).double()
    threshold = method.threshold(probability[:1000], labels[:1000], draws[:1000], 0.8)
    sets = method.sets(probability[1000:], draws[1000:], threshold)
    covered = float(sets.gather(1, labels[1000:, None]).double().mean())
    low, high = expected_coverage(0.8, 1000, 5000)
    assert low < covered < high
    assert 1 < sets.sum(1).double().mean() < 6


def test_adaptive_sets_are_larger_where_the_network_is_less_sure() -> None:
    flat, sharp = torch.full((1, 10), 0.1).double(), torch.tensor([[0.91, *[0.01] * 9]]).double()
    random = torch.tensor([0.5]).double()
    assert APS.sets(flat, random, 0.86).sum() == 9  # 0.05, 0.15 … 0.85
    assert APS.sets(sharp, random, 0.86).sum() == 1
    assert RAPS.sets(flat, random, 0.86).sum() == 5  # 0.05, 0.25 … 0.85
    assert LAC.sets(flat, random, 0.86).sum() == 0


def test_the_expected_coverage_is_that_of_a_beta_binomial_distribution() -> None:
    low, high = expected_coverage(0.9, 500, 1000)
    exact = [limit / 1000 for limit in betabinom(1000, 451, 50).ppf([0.025, 0.975])]
    assert (low, high) == pytest.approx(exact, abs=0.003)
