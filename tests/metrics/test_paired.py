"""Paired tests against SciPy, and against a value by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from trustml_cli.metrics.paired import mcnemar, paired_p_value


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 21), (0, 300)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second, 0.5).pvalue if first + second else 1
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    # six images are right by one alone, none by the other alone: 2 · 0.5⁶
    one, other = np.arange(10) < 8, np.arange(10) < 2
    assert paired_p_value(one, other) == paired_p_value(other, one) == 2 * 0.5**6


def test_other_numbers_are_compared_by_students_test() -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=50)
    other = one + random.normal(0.1, 0.3, size=50)
    assert paired_p_value(one, other) == pytest.approx(ttest_rel(one, other).pvalue, rel=1e-9)


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.5, 0.0)])
def test_values_that_all_differ_alike(shift: float, p: float) -> None:
    assert paired_p_value(np.zeros(4), np.full(4, shift)) == p
