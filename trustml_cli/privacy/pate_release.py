"""Publishing the data-dependent privacy cost of PATE with noise scaled to its smooth sensitivity.

Papernot et al. 2018, arXiv 1802.08908, appendix B (algorithms 3 to 5, proposition 13, theorem 23), after Nissim,
Raskhodnikova and Smith 2007. Equal to the authors' analysis (tensorflow/privacy, research/pate_2018/
smooth_sensitivity.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from torch import Tensor

from trustml_cli.privacy.accounting import ORDERS, conversion
from trustml_cli.privacy.pate import (
    ConfidentGnmax,
    Floats,
    dependent_rdp,
    gaussian_rdp,
    log_other,
    threshold_rdp,
)

BETA = 0.4  # of the smooth sensitivity, times the order: in the middle of the range that the authors search
FINE = 2000  # values at which the conditions of monotonicity are checked


@dataclass(frozen=True)
class NoisyMaximum:
    """Local sensitivity of the data-dependent RDP at one `order` of a noisy maximum over `classes` counts.

    `log_q0` is the log-probability of another outcome from which on the bound is the data-independent one, `log_q1`
    the largest that one teacher's vote cannot raise beyond it.
    """

    sigma: float
    order: float
    classes: int
    log_q0: float
    log_q1: float

    @classmethod
    def of(cls, sigma: float, order: float, classes: int) -> "NoisyMaximum":
        """Find the two log-probabilities."""
        log_q0 = crossing(sigma, order)
        return cls(sigma, order, classes, log_q0, float(changed(np.array([log_q0]), sigma, classes, -1)[0]))

    def rdp(self, logq: Floats) -> Floats:
        """RDP at the order, [Q], without the conditions of theorem 6, which hold below `log_q0`."""
        with np.errstate(all="ignore"):
            bound = dependent_rdp(logq, self.sigma, np.array([self.order]))[:, 0]
        plain = gaussian_rdp(self.sigma, np.array([self.order]))
        return np.where(logq >= self.log_q0, plain, bound)

    def local(self, logq: Floats) -> Floats:
        """An upper bound of the local sensitivity (algorithm 3), [Q]."""
        logq = np.where((self.log_q1 <= logq) & (logq <= self.log_q0), self.log_q1, logq)
        here = self.rdp(logq)
        above, below = (self.rdp(changed(logq, self.sigma, self.classes, sign)) for sign in (1, -1))
        return np.maximum(above - here, here - below)

    def at_distances(self, votes: Floats) -> Floats:
        """The largest local sensitivity at each distance of 0 to N − 1 teachers from `votes` [Q, K], [Q, N].

        Algorithms 4 and 5: votes move towards the plateau between `log_q1` and `log_q0`, one teacher at a time.
        """
        teachers = int(votes[0].sum())
        ranked, logq = -np.sort(-votes, axis=1), log_other(votes, self.sigma)
        found = np.full((len(votes), teachers), self.local(np.array([self.log_q1]))[0])
        begins = (logq < self.log_q1) | (logq > self.log_q0)
        found[begins, 0] = self.local(logq[begins])
        lowering = logq > self.log_q0
        for distance in range(1, teachers):
            moves = np.where(lowering, (logq > self.log_q0) & (ranked[:, 1] > 0), logq < self.log_q1)
            if not moves.any():
                break
            step = np.where(lowering, 1, -1) * moves
            ranked[:, 0] += step
            ranked[:, 1] -= step
            ranked = -np.sort(-ranked, axis=1)
            logq[moves] = log_other(ranked[moves], self.sigma)
            found[moves, distance] = self.local(logq[moves])
        return found

    def monotonic(self) -> bool:
        """Whether the RDP, and what one vote adds to it, grow with the probability (conditions C5 and C6)."""
        below = self.log_q0 + np.log(np.linspace(0.5 / FINE, 1 - 0.5 / FINE, FINE))
        lower = below[below < self.log_q1]
        added = self.rdp(changed(lower, self.sigma, self.classes, 1)) - self.rdp(lower)
        return bool((np.diff(self.rdp(below)) >= -1e-12).all() and (np.diff(added) >= -1e-12).all())


def changed(logq: Floats, sigma: float, classes: int, sign: int) -> Floats:
    """The most (`sign` 1) or least (−1) that `logq` becomes by one teacher's change of vote, [Q]."""
    from scipy.special import log_ndtr, ndtri_exp

    others = log(classes - 1)
    moved: Floats = others + log_ndtr(ndtri_exp(logq - others) + sign * sqrt(2) / sigma)
    return np.minimum(moved, 0) if sign > 0 else moved


def crossing(sigma: float, order: float) -> float:
    """The log-probability from which on the data-independent bound is the smaller one."""
    from scipy.optimize import brentq

    def excess(logq: float) -> float:
        bound = dependent_rdp(np.array([logq]), sigma, np.array([order]))[0, 0]
        return float(bound - gaussian_rdp(sigma, np.array([order]))[0])

    high = min(-((1 + 1 / sigma) ** 2), -(((order - 0.99) / sigma) ** 2), -1 / sigma**2)
    if excess(high) < 0:
        return high
    low = 2 * high
    while excess(low) > 0:
        low *= 1.5
    return float(brentq(excess, low, high))


def threshold_at_distances(aggregator: ConfidentGnmax, top: Floats, teachers: int, order: float) -> Floats:
    """The largest local sensitivity of the comparison with the threshold at each distance from `top` [Q], [Q, N]."""
    counts: Floats = np.arange(teachers + 1, dtype=np.float64)
    rdp = threshold_rdp(aggregator.log_answered(counts), aggregator.sigma1, np.array([order]))[:, 0]
    change = np.abs(np.diff(rdp))
    local = np.maximum(np.append(change, 0), np.insert(change, 0, 0))  # of a vote more, and of a vote less
    current, distance = np.round(top).astype(int)[:, None], np.arange(teachers)
    more, less = current + distance, current - distance
    found = np.maximum(
        np.where(more <= teachers, local[np.minimum(more, teachers)], 0),
        np.where(less >= 0, local[np.maximum(less, 0)], 0),
    )
    return np.where(distance < np.maximum(current, teachers - current), found, 0)


def smooth_sensitivity(aggregator: ConfidentGnmax, votes: Floats, answered: Floats, order: float) -> float:
    """The β-smooth sensitivity, with β = `BETA` / order, of the RDP of all queries at one order.

    Arguments as of `ConfidentGnmax.rdp`.
    """
    teachers, classes = int(votes[0].sum()), votes.shape[1]
    first = threshold_at_distances(aggregator, votes.max(1), teachers, order).sum(0)
    second = NoisyMaximum.of(aggregator.sigma2, order, classes).at_distances(votes)
    local = first + (answered[:, None] * second).sum(0)
    return float((local * np.exp(-BETA / order * np.arange(teachers))).max())


def released(
    aggregator: ConfidentGnmax,
    votes: Floats,
    answered: Floats,
    delta: float,
    order: int,
    noise: float,
    normal: Callable[[int], Tensor],
) -> float | None:
    """The data-dependent ε with noise, and with what its own release costs; None where that would not be private.

    The standard deviation of the noise is `noise` times the smooth sensitivity at the RDP `order`; `normal(1)` is a
    standard normal number. The other arguments are those of `ConfidentGnmax.rdp`, and δ. The ε holds in expectation:
    half of the time the noise lowers it. That the release is private is known under the conditions of
    `NoisyMaximum.monotonic` only.
    """
    if not NoisyMaximum.of(aggregator.sigma2, order, votes.shape[1]).monotonic():
        return None
    cost = float(aggregator.rdp(votes, answered)[:, ORDERS.index(order)].sum())
    cost += noise * smooth_sensitivity(aggregator, votes, answered, order) * float(normal(1))
    return max(0.0, cost) + release_rdp(BETA / order, noise, order) + conversion(order, delta)


def release_rdp(beta: float, noise: float, order: float) -> float:
    """RDP at `order` of a number with Gaussian noise of `noise` times its β-smooth sensitivity (theorem 23)."""
    if not 1 < order < 1 / (2 * beta):
        raise ValueError("order: must be above 1 and below 1 / (2 β)")
    return order * exp(2 * beta) / noise**2 + (-0.5 * log(1 - 2 * order * beta) + beta * order) / (order - 1)
