"""Intervals of what is measured between samples, by drawing each of them again (Efron 1979)."""

from collections.abc import Iterator
from math import nan

import numpy as np
from numpy.typing import NDArray

from trustml_cli.metrics.intervals import wilson_interval

RESAMPLES = 1000
AT_ONCE = 2**15  # numbers that are held at once: as many as fit into a processor's cache
LEVELS = [0.025, 0.975]

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def drawn_again(sample: Counts, seed: int, resamples: int = RESAMPLES) -> Iterator[Counts]:
    """How often each of N rows comes in draws with replacement, [draws, N], a part of the `resamples` at a time.

    `sample` [N] numbers the sample of each row, from 0; each is drawn by itself, as many rows as it has.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(sample == number) for number in range(int(sample.max()) + 1)]
    rest = resamples
    while rest:
        draws = min(rest, max(1, AT_ONCE // len(sample)))
        begins = len(sample) * np.arange(draws)[:, None]
        chosen = [begins + rows[random.integers(len(rows), size=(draws, len(rows)))] for rows in members if len(rows)]
        cells = np.concatenate(chosen, axis=1).ravel()
        yield np.bincount(cells, minlength=draws * len(sample)).reshape(draws, len(sample))
        rest -= draws


def by_value(scores: Floats) -> tuple[Counts, Counts]:
    """The order of scores [N] from the lowest to the highest, and where each new value begins in it."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def roc_area(negatives: Counts, positives: Counts, below: Counts) -> Floats:
    """The chance that a positive scores above a negative, ties count half, [draws]; nan where one of them is absent.

    They hold the number of rows at each value, the lowest first, [draws, values]; `below` counts negatives up to there.
    """
    pairs = below[:, -1] * positives.sum(1)
    with np.errstate(invalid="ignore"):
        area: Floats = (positives * (below - negatives / 2)).sum(1) / pairs
    return area


def percentile_interval(values: Floats) -> tuple[float, float]:
    """The 95 % interval from what came of the draws; draws that came to nothing (nan) do not count."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, LEVELS) if len(known) else (nan, nan)
    return float(low), float(high)


def share_interval(value: float, values: Floats, smallest: int) -> tuple[float, float]:
    """The interval of a `value` in [0, 1] of which the draws have made `values`.

    The percentile interval is too narrow near 0 and 1, and has no width at all for samples that do not overlap. So it
    reaches at least as far as Wilson's interval for a proportion with the same variance; without any variance, for one
    of the `smallest` sample's rows: the variance of an area A under a ROC curve is A(1 − A) / min(N, M) at most (van
    Dantzig 1951).
    """
    low, high = percentile_interval(values)
    variance = float(np.nanvar(values))
    rows = value * (1 - value) / variance if variance > 0 and 0 < value < 1 else smallest
    ends = wilson_interval(value * rows, rows)
    return min(low, ends[0]), max(high, ends[1])
