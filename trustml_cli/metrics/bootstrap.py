"""Bootstrap intervals of statistics of several samples (Efron 1979)."""

from collections.abc import Iterator
from math import nan

import numpy as np
from numpy.typing import NDArray

from trustml_cli.metrics.intervals import wilson_interval

RESAMPLES = 1000
AT_ONCE = 2**15  # numbers processed at once, chosen to fit a processor's cache
LEVELS = [0.025, 0.975]

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def drawn_again(sample: Counts, seed: int, resamples: int = RESAMPLES) -> Iterator[Counts]:
    """Bootstrap multiplicities of N rows, [draws, N], yielded in parts of the `resamples` draws.

    `sample` [N] is the sample number of each row, from 0; each sample is resampled separately, at its own size.
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
    """The ascending order of scores [N], and the position in it at which each distinct value begins."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def roc_area(negatives: Counts, positives: Counts, below: Counts) -> Floats:
    """P(positive scores above negative), with ties counted half: the ROC AUC, [draws]; nan if either is absent.

    Both hold the number of rows at each distinct score, ascending, [draws, values]; `below` is the cumulative count of
    negatives up to and including each score.
    """
    pairs = below[:, -1] * positives.sum(1)
    with np.errstate(invalid="ignore"):
        area: Floats = (positives * (below - negatives / 2)).sum(1) / pairs
    return area


def percentile_interval(values: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values; draws with undefined values (nan) are ignored."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, LEVELS) if len(known) else (nan, nan)
    return float(low), float(high)


def share_interval(value: float, values: Floats, smallest: int) -> tuple[float, float]:
    """The 95 % interval of a `value` in [0, 1] with the bootstrap `values`.

    The percentile interval is too narrow near 0 and 1, and has no width for samples that do not overlap. It is
    therefore extended to at least Wilson's interval for a proportion of equal variance or, without variance, for one of
    the `smallest` sample's size: the variance of an area A under a ROC curve is at most A(1 − A) / min(N, M) (van
    Dantzig 1951).
    """
    low, high = percentile_interval(values)
    variance = float(np.nanvar(values))
    rows = value * (1 - value) / variance if variance > 0 and 0 < value < 1 else smallest
    ends = wilson_interval(value * rows, rows)
    return min(low, ends[0]), max(high, ends[1])
