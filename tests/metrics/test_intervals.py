"""Intervals against scipy and numbers worked out by hand."""

from math import isnan

import pytest
import torch
from scipy.stats import binomtest, quantile_test

from trustml_cli.metrics.columns import within
from trustml_cli.metrics.intervals import average, median, proportion, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n"),
    [(0, 1), (1, 1), (0, 10), (10, 10), (1, 10), (5, 10), (9, 10), (0, 10_000), (10_000, 10_000), (9_876, 10_000)],
)
def test_the_interval_is_scipy_s_wilson_interval(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = wilson_interval(successes, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1


def test_of_nothing_no_proportion_is_known() -> None:
    columns = proportion("accuracy", 0, 0)
    assert columns.pop("accuracy_n") == 0
    assert len(columns) == 3
    assert all(isnan(value) for value in columns.values())


def test_a_proportion_comes_with_its_interval_and_n() -> None:
    columns = proportion("accuracy", 15, 20)
    assert list(columns) == ["accuracy", "accuracy_ci_low", "accuracy_ci_high", "accuracy_n"]
    # (0.75 + 0.09604 ∓ 1.95996 · √(0.009375 + 0.0024009)) / 1.19207
    assert tuple(columns.values()) == pytest.approx((0.75, 0.5313, 0.8881, 20), abs=1e-4)


def test_a_mean_comes_with_student_s_interval_and_n() -> None:
    columns = average("height", torch.tensor([1.0, 2.0, 4.0]))
    assert list(columns) == ["height", "height_ci_low", "height_ci_high", "height_n"]
    # mean 7/3, deviation √(7/3), and 4.30265, the 97.5 % quantile of t with two degrees of freedom
    half_width = 4.30265 * (7 / 3) ** 0.5 / 3**0.5
    assert tuple(columns.values()) == pytest.approx((7 / 3, 7 / 3 - half_width, 7 / 3 + half_width, 3), abs=1e-4)


def test_one_value_has_a_mean_and_no_interval() -> None:
    columns = average("gap", torch.tensor([2.0]))
    assert (columns["gap"], columns["gap_n"]) == (2.0, 1)
    assert isnan(columns["gap_ci_low"])
    assert isnan(columns["gap_ci_high"])


def test_the_interval_of_a_mean_ends_where_the_value_does() -> None:
    assert average("mean_l2", torch.tensor([0.0, 0.1]))["mean_l2_ci_low"] == 0
    assert within("relative_corruption_error", -0.3, -0.1) == (-0.3, -0.1)  # better than on clean images
    high = average("mean_confidence", torch.tensor([0.2, 1.0]))
    assert (high["mean_confidence_ci_low"], high["mean_confidence_ci_high"]) == (0, 1)


def test_a_mean_of_equal_shares_is_not_certain() -> None:
    for value in (0.0, 1.0):
        columns = average("accuracy", torch.full((50,), value))
        assert tuple(columns.values()) == (value, *wilson_interval(50 * value, 50), 50)
    none = average("mean_l2", torch.zeros(50))  # an image that is not changed is at no distance
    assert (none["mean_l2_ci_low"], none["mean_l2_ci_high"]) == (0, 0)


@pytest.mark.parametrize("n", [6, 7, 20, 51, 400])
def test_the_interval_of_a_median_is_that_of_scipy_s_quantile_test(n: int) -> None:
    values = torch.randn(n, generator=torch.Generator().manual_seed(n)).double()
    columns = median("height", values)
    assert list(columns) == ["height", "height_ci_low", "height_ci_high", "height_n"]
    expected = quantile_test(values.numpy(), p=0.5).confidence_interval(0.95)
    assert columns["height"] == pytest.approx(values.quantile(0.5).item())
    assert (columns["height_ci_low"], columns["height_ci_high"]) == pytest.approx((expected.low, expected.high))


def test_a_median_may_be_infinite_and_of_few_values_has_no_interval() -> None:
    assert median("distance", torch.tensor([1.0, torch.inf, torch.inf]))["distance"] == torch.inf
    assert isnan(median("distance", torch.arange(5.0))["distance_ci_low"])
