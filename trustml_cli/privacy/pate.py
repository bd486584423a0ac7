"""PATE: teachers on disjoint parts of private data answer queries by a noisy vote, and what the answers give away.

Papernot, Song, Mironov, Raghunathan, Talwar and Erlingsson 2018, arXiv 1802.08908: confident GNMax (algorithm 1) and
its data-dependent Rényi differential privacy (RDP). Neighbouring data sets differ in one example, and so in the vote of
one teacher. Equal to the authors' analysis (tensorflow/privacy, research/pate_2018/core.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trustml_cli.privacy.accounting import ORDERS, conversion

Floats = NDArray[np.float64]

ALPHAS: Floats = np.array(ORDERS)
"""The orders of RDP, [A]."""


@dataclass(frozen=True, kw_only=True)
class ConfidentGnmax:
    """Answers a query where the noisy count of the top class reaches `threshold`, with the class of the noisy maximum.

    `sigma1` is the standard deviation of the noise, in votes, of the first comparison, and `sigma2` that of each
    class's count in the second.
    """

    threshold: float
    sigma1: float
    sigma2: float

    def answers(self, votes: Tensor, normal: Callable[[int], Tensor], most: int) -> Tensor:
        """The answered class of each query, int64 [Q'], −1 where there is none; asking ends after `most` answers.

        `votes` [Q, K] are the numbers of teachers, and `normal(n)` are n standard normal numbers, float64. Q' ≤ Q is
        the number of queries until the last of `most` answers.
        """
        counts = votes.double()
        confident = counts.amax(1) + self.sigma1 * normal(len(counts)) >= self.threshold
        asked = int((confident.cumsum(0) - confident.long() < most).sum())
        noisy = counts + self.sigma2 * normal(counts.numel()).view_as(counts)
        return noisy.argmax(1).where(confident, -1)[:asked]

    def worst_rdp(self, queries: int, answers: int) -> Floats:
        """RDP [A] of `queries` queries of which `answers` are answered, whatever the votes are (proposition 8)."""
        return queries * gaussian_rdp(sqrt(2) * self.sigma1) + answers * gaussian_rdp(self.sigma2)

    def rdp(self, votes: Floats, answered: Floats) -> Floats:
        """RDP of each query given its votes, [Q, A]; it depends on private data, as the votes do.

        `votes` [Q, K]; `answered` [Q] says which queries were answered, or with which probability (the expectation).
        """
        second = noisy_max_rdp(log_other(votes, self.sigma2), self.sigma2)
        return threshold_rdp(self.log_answered(votes.max(1)), self.sigma1) + answered[:, None] * second

    def log_answered(self, top: Floats) -> Floats:
        """Log of the probability that a query is answered whose top class has `top` votes, rounded as in the source."""
        from scipy.special import log_ndtr

        found: Floats = log_ndtr((np.round(top) - self.threshold) / self.sigma1)
        return found


def epsilon(rdp: Floats, delta: float) -> Floats:
    """ε of (ε, δ)-differential privacy from RDP at all orders, [..., A] to [...]; see `accounting.conversion`."""
    least: Floats = (rdp + np.array([conversion(order, delta) for order in ORDERS])).min(-1)
    return np.maximum(least, 0)


def gaussian_rdp(sigma: float, orders: Floats = ALPHAS) -> Floats:
    """RDP of the noisy maximum whatever the votes are (proposition 8): one teacher changes two counts, [A]."""
    rdp: Floats = orders / sigma**2
    return rdp


def log_other(votes: Floats, sigma: float) -> Floats:
    """An upper bound of the log-probability that the noisy maximum is not the top class (proposition 7), [Q]."""
    from scipy.special import log_ndtr, logsumexp

    ranked = np.sort(votes, axis=1)
    gaps = ranked[:, -1:] - ranked[:, :-1]
    bound: Floats = logsumexp(log_ndtr(-gaps / (sqrt(2) * sigma)), axis=1)
    return np.minimum(bound, log(1 - 1 / votes.shape[1]))


def threshold_rdp(log_answered: Floats, sigma: float, orders: Floats = ALPHAS) -> Floats:
    """RDP of the comparison with the threshold, [Q, A]: one teacher changes one count, hence the factor √2."""
    return noisy_max_rdp(np.minimum(log_answered, log1mexp(log_answered)), sqrt(2) * sigma, orders)


def noisy_max_rdp(logq: Floats, sigma: float, orders: Floats = ALPHAS) -> Floats:
    """RDP [Q, A] of the noisy maximum, from the log-probability of another outcome than the likeliest (theorem 6).

    Where the theorem's conditions do not hold, it is `gaussian_rdp`.
    """
    plain = gaussian_rdp(sigma, orders)
    with np.errstate(all="ignore"):  # values outside of the conditions are not used
        second = sigma * np.sqrt(-logq)  # the higher orders μ₂ and μ₁ of proposition 10
        first = second + 1
        limit = (second - 1) * second / sigma**2 - second * (np.log(first / second) + np.log(second / (second - 1)))
        holds = (second > 1) & (logq <= limit) & (-logq > second / sigma**2)
        usable = holds[:, None] & (first[:, None] > orders)
        bound = dependent_rdp(logq, sigma, orders)
    found: Floats = np.where(np.isneginf(logq)[:, None], 0.0, np.where(usable, np.fmin(plain, bound), plain))
    return found


def dependent_rdp(logq: Floats, sigma: float, orders: Floats) -> Floats:
    """The bound of theorem 6 with the higher orders of proposition 10, [Q, A]; its conditions are not checked."""
    logq = logq[:, None]
    second = sigma * np.sqrt(-logq)
    first = second + 1
    other = log1mexp(logq)
    rest = other - log1mexp((logq + second / sigma**2) * (1 - 1 / second))
    high = first / sigma**2 - logq / (first - 1)
    total = np.logaddexp(other + (orders - 1) * rest, logq + (orders - 1) * high)
    bound: Floats = total / (orders - 1)
    return bound


def log1mexp(x: Floats) -> Floats:
    """log(1 − eˣ) for x ≤ 0, precise at both ends; nan above."""
    with np.errstate(all="ignore"):
        found: Floats = np.where(x < -1, np.log1p(-np.exp(x)), np.log(-np.expm1(x)))
    return found
