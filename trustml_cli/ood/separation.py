"""How well scores separate outliers from inliers, with either of the two as the positive class.

Papers disagree: Hendrycks and Gimpel 2017 (arXiv 1610.02136) report the AUPR of both; Liang et al. 2018 (arXiv
1706.02690) and Liu et al. 2020 (arXiv 2010.03759) take inliers as the positive class for the false-positive rate,
pytorch-ood takes outliers.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from trustml_cli.metrics.bootstrap import (
    Counts,
    Floats,
    by_value,
    drawn_again,
    percentile_interval,
    roc_area,
    share_interval,
)
from trustml_cli.metrics.intervals import wilson_interval

FOUND = 0.95  # the true-positive rate at which the false-positive rate is measured


@dataclass(frozen=True)
class Separation:
    """How well scores separate outliers from inliers; all values in [0, 1].

    `auroc` is the probability that an outlier scores above an inlier; it does not depend on the positive class. With
    outliers as positives, `aupr_outliers_positive` is the average precision, and the false-positive rate at 95 %
    true-positive rate is the share of inliers that are flagged when 95 % of the outliers are: `flagged` of the
    `inliers`. With inliers as positives, `aupr_inliers_positive` is the average precision, and the false-positive rate
    is the share of outliers that pass when 95 % of the inliers do: `passed` of the `outliers`. `fpr` and `tpr` are the
    ROC curve with outliers as positives.
    """

    auroc: float
    aupr_outliers_positive: float
    aupr_inliers_positive: float
    flagged: int
    passed: int
    inliers: int
    outliers: int
    fpr: list[float]
    tpr: list[float]

    @property
    def fpr_at_95_tpr_outliers_positive(self) -> float:
        """The share of inliers that are flagged when 95 % of the outliers are."""
        return self.flagged / self.inliers

    @property
    def fpr_at_95_tpr_inliers_positive(self) -> float:
        """The share of outliers that pass when 95 % of the inliers do."""
        return self.passed / self.outliers


MEASURES = (
    "auroc",
    "aupr_outliers_positive",
    "aupr_inliers_positive",
    "fpr_at_95_tpr_outliers_positive",
    "fpr_at_95_tpr_inliers_positive",
)


def separation(inliers: Tensor, outliers: Tensor) -> Separation:
    """The metrics for scores of inliers [N] and outliers [M]; higher scores mean further from the training data."""
    is_outlier, begins = ranked(inliers, outliers)
    here, there = at_values(np.ones((1, len(is_outlier)), dtype=np.int64), is_outlier, begins)
    found = {name: float(values[0]) for name, values in measures(here, there).items()}
    n, m = len(inliers), len(outliers)
    return Separation(
        auroc=found["auroc"],
        aupr_outliers_positive=found["aupr_outliers_positive"],
        aupr_inliers_positive=found["aupr_inliers_positive"],
        flagged=round(n * found["fpr_at_95_tpr_outliers_positive"]),
        passed=round(m * found["fpr_at_95_tpr_inliers_positive"]),
        inliers=n,
        outliers=m,
        fpr=[0.0, *(here[0, ::-1].cumsum() / n).tolist()],
        tpr=[0.0, *(there[0, ::-1].cumsum() / m).tolist()],
    )


def separation_intervals(inliers: Tensor, outliers: Tensor, seed: int) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of `MEASURES`; both inliers and outliers are resampled, since all measures need both.

    The interval of a false-positive rate is at least as wide as Wilson's for the negative sample alone.
    """
    is_outlier, begins = ranked(inliers, outliers)
    parts = [measures(*at_values(often, is_outlier, begins)) for often in drawn_again(is_outlier, seed)]
    draws = {name: np.concatenate([part[name] for part in parts]) for name in MEASURES}
    found = separation(inliers, outliers)
    smallest = min(found.inliers, found.outliers)
    ends = {name: share_interval(getattr(found, name), draws[name], smallest) for name in MEASURES[:3]}
    rates = (found.flagged, found.inliers), (found.passed, found.outliers)
    for name, (count, n) in zip(MEASURES[3:], rates, strict=True):
        low, high = percentile_interval(draws[name])
        alone = wilson_interval(count, n)
        ends[name] = min(low, alone[0]), max(high, alone[1])
    return ends


def ranked(inliers: Tensor, outliers: Tensor) -> tuple[Counts, Counts]:
    """Labels (1 outlier, 0 inlier) in ascending order of score, and the index at which each distinct score begins."""
    scores = np.concatenate([part.detach().cpu().double().numpy() for part in (inliers, outliers)])
    order, begins = by_value(scores)
    return np.repeat([0, 1], [len(inliers), len(outliers)])[order], begins


def at_values(often: Counts, is_outlier: Counts, begins: Counts) -> tuple[Counts, Counts]:
    """Inliers and outliers at each distinct score, two counts [draws, values]; `often` are the rows' multiplicities."""
    outliers = often * is_outlier
    if len(begins) < len(is_outlier):  # there are ties
        often, outliers = (np.add.reduceat(part, begins, axis=1) for part in (often, outliers))
    return often - outliers, outliers


def measures(inliers: Counts, outliers: Counts) -> dict[str, Floats]:
    """`MEASURES` of each draw, from the numbers at each distinct score, in ascending order, [draws, values]."""
    passed, missed = inliers.cumsum(1), outliers.cumsum(1)  # passed with the threshold at each score
    flagged = passed[:, -1:] - passed + inliers  # flagged with the threshold at each score
    found = missed[:, -1:] - missed + outliers
    aupr_out, fpr_out = one_way(outliers, found, flagged, lowest_first=False)
    aupr_in, fpr_in = one_way(inliers, passed, missed, lowest_first=True)
    area = roc_area(inliers, outliers, passed)
    return dict(zip(MEASURES, (area, aupr_out, aupr_in, fpr_out, fpr_in), strict=True))


def one_way(positives: Counts, true: Counts, false: Counts, lowest_first: bool) -> tuple[Floats, Floats]:
    """Average precision, and false-positive rate at true-positive rate `FOUND`, [draws] each.

    `positives` are the numbers of positives at each score, `true` and `false` those of true and false positives with
    the threshold at that score, all [draws, values].
    """
    end = -1 if lowest_first else 0
    aupr = (positives * (true / np.maximum(true + false, 1))).sum(1) / true[:, end]
    enough = true >= FOUND * true[:, end, None] * (1 - 1e-12)
    first = enough.argmax(1) if lowest_first else enough.sum(1) - 1
    return aupr, false[np.arange(len(false)), first] / false[:, end]
