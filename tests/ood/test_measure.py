"""The threshold, by hand and against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trustml_cli.ood.measure import evaluate, exact_quantile

ONE_TO_TEN = torch.tensor([4.0, 9, 1, 10, 3, 7, 5, 2, 8, 6]).double()


@pytest.mark.parametrize(
    ("quantile", "threshold"), [(0.9, 9), (0.95, 10), (0.89, 9), (0.5, 5), (0.51, 6), (0.1, 1), (0.001, 1), (0.999, 10)]
)
def test_the_threshold_is_the_exact_quantile_by_hand(quantile: float, threshold: float) -> None:
    assert exact_quantile(ONE_TO_TEN, quantile) == threshold


def test_of_twenty_images_nineteen_pass_and_ties_pass_together() -> None:
    scores = torch.arange(20).double()
    assert exact_quantile(scores, 0.95) == 18
    assert exact_quantile(torch.tensor([1.0, 1, 1, 2]).double(), 0.5) == 1
    assert exact_quantile(torch.arange(1, 101).double(), 0.55) == 55  # though 0.55 · 100 is 55.000000000000007


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.001, 0.999))
def test_enough_images_pass_and_with_the_next_lower_score_too_few_would(values: list[float], quantile: float) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    threshold = exact_quantile(scores, quantile)
    assert threshold in values
    assert (scores <= threshold).sum() >= quantile * len(values) - 1e-6
    assert (scores < threshold).sum() < quantile * len(values)


def test_the_quantile_equals_numpys() -> None:
    scores = torch.randn(997, generator=torch.Generator().manual_seed(0)).double()
    for quantile in (0.05, 0.5, 0.9, 0.95, 0.99):
        assert exact_quantile(scores, quantile) == np.quantile(scores.numpy(), quantile, method="inverted_cdf")


def test_of_the_images_those_at_the_threshold_pass() -> None:
    inliers, outliers = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([3.5, 5]).double()
    judged = evaluate(torch.tensor([1.0, 2, 3, 3.5]).double(), inliers, outliers, 0.75)
    assert (judged.threshold, judged.inliers_passed, judged.outliers_passed) == (3, 3, 0)
    assert evaluate(ONE_TO_TEN, inliers, outliers, 0.4).inliers_passed == 4  # a score at the threshold passes
