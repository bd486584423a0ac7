"""Privacy accounting of DP-SGD by Rényi differential privacy (RDP).

Mironov, Talwar and Zhang 2019, "Rényi differential privacy of the sampled Gaussian mechanism", arXiv 1908.10530.
Neighbouring data sets differ by one example more or less.
"""

from collections.abc import Callable
from functools import cache
from math import ceil, inf, log, log1p

import numpy as np
from numpy.typing import NDArray

ORDERS = (*(1 + step / 10 for step in range(1, 100)), *range(11, 64), 80, 96, 128, 192, 256, 512)
"""The orders α of which the best is taken."""
MOST_TERMS = 10_000  # of a series; with so much noise the best order is a large one, which needs none
MOST_NOISE = 2.0**20
CLOSE = 1e-4  # relative width at which the search ends

Floats = NDArray[np.float64]


def epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """ε of (ε, δ)-differential privacy after `steps` steps of the Poisson-sampled Gaussian; inf without noise.

    `noise_multiplier` is the standard deviation of the noise in units of the clipping norm, and `sample_rate` the
    probability of each example to be in a batch. Of the orders, the smallest ε of the conversion by Canonne, Kamath and
    Steinke 2020 (arXiv 2004.00010, proposition 12) is taken.
    """
    if steps == 0 or sample_rate == 0:
        return 0.0
    if noise_multiplier == 0:
        return inf
    candidates = [steps * rdp(noise_multiplier, sample_rate, order) + conversion(order, delta) for order in ORDERS]
    return max(0.0, min(candidates))


def conversion(order: float, delta: float) -> float:
    """What the conversion of RDP at one order to (ε, δ) adds to ε."""
    return log1p(-1 / order) - log(delta * order) / (order - 1)


@cache  # a search of a tenth of a second, asked for by training, checks and columns
def noise_for(
    wanted: float, sample_rate: float, steps: int, delta: float, spent: Callable[..., float] = epsilon
) -> float:
    """The smallest noise multiplier, up to a relative 1e-4, with at most ε = `wanted`; never more than `wanted`.

    `spent` is the accountant, with the arguments of `epsilon`. Raises ValueError if no noise up to `MOST_NOISE` is
    enough.
    """
    low, high = 0.0, 1.0
    while spent(high, sample_rate, steps, delta) > wanted:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise ValueError(f"epsilon: no noise reaches {wanted:g} with delta={delta:g}; use a larger one of the two")
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        if spent(middle, sample_rate, steps, delta) > wanted:
            low = middle
        else:
            high = middle
    return high


def rdp(noise_multiplier: float, sample_rate: float, order: float) -> float:
    """RDP of one step at one order α > 1."""
    if sample_rate == 1:
        return order / (2 * noise_multiplier**2)
    moment = integer_moment if float(order).is_integer() else fractional_moment
    return moment(noise_multiplier, sample_rate, order) / (order - 1)


def integer_moment(sigma: float, q: float, order: float) -> float:
    """Log of A_α for an integer α (section 3.3 of the paper): a sum of α + 1 terms."""
    k = np.arange(int(order) + 1)
    return log_sum(log_binomial(order, k) + k * log(q) + (order - k) * log1p(-q) + (k * k - k) / (2 * sigma**2))


def fractional_moment(sigma: float, q: float, order: float) -> float:
    """Log of A_α for any α > 1 (section 3.3 of the paper): two series with terms of either sign from i > α."""
    from scipy.special import binom, log_ndtr

    crossing = sigma**2 * log(1 / q - 1) + 0.5
    count = max(64, 2 * ceil(order + 5 * sigma + crossing))
    if count > MOST_TERMS:
        return inf
    i = np.arange(count)
    j = order - i
    coefficient = binom(order, i)
    sign, size = np.sign(coefficient), np.log(np.abs(coefficient), where=coefficient != 0, out=np.full(len(i), -np.inf))
    below = size + i * log(q) + j * log1p(-q) + (i * i - i) / (2 * sigma**2) + log_ndtr((crossing - i) / sigma)
    above = size + j * log(q) + i * log1p(-q) + (j * j - j) / (2 * sigma**2) + log_ndtr((j - crossing) / sigma)
    largest = max(below.max(), above.max())
    return float(largest + np.log((sign * (np.exp(below - largest) + np.exp(above - largest))).sum()))


def log_binomial(n: float, k: Floats | NDArray[np.int64]) -> Floats:
    """Log of n over k for integers."""
    from scipy.special import gammaln

    values: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return values


def log_sum(terms: Floats) -> float:
    """Log of the sum of the exponentials."""
    largest = terms.max()
    return float(largest + np.log(np.exp(terms - largest).sum()))
