"""Tests of whether two networks differ on the same images."""

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
"""A value for each image, [N]; bool where it is a yes or no."""


def paired_p_value(one: Values, other: Values) -> float:
    """The two-sided p-value of equal means of two sets of values [N] of the same N images, in [0, 1]; 1 for N = 0.

    Of yes and no it is McNemar's exact test (McNemar 1947, doi 10.1007/BF02295996), of other numbers Student's t-test
    of the differences.
    """
    if one.dtype == other.dtype == bool:
        return mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))
    return paired_t(one.astype(float) - other.astype(float))


def mcnemar(first: int, second: int) -> float:
    """McNemar's exact p-value: `first` images are right by the first network alone, `second` by the second alone.

    Under equal accuracy each of these images is as likely to be one as the other.
    """
    from scipy.special import bdtr  # the binomial distribution; scipy.stats takes half a second to import

    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def paired_t(differences: Values) -> float:
    """The two-sided p-value of Student's t-test that the differences [N] have mean 0."""
    from scipy.special import stdtr

    if len(differences) < 2 or not differences.any():
        return 1.0
    deviation = float(differences.std(ddof=1))
    if deviation == 0:
        return 0.0
    t = float(np.abs(differences.mean())) * sqrt(len(differences)) / deviation
    return 2 * float(stdtr(len(differences) - 1, -t))
