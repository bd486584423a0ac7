"""How well scores tell outliers from inliers, and the threshold that lets a given share of inliers pass."""

from dataclasses import dataclass
from math import ceil

from torch import Tensor, cat, ones, zeros


def exact_quantile(scores: Tensor, quantile: float) -> float:
    """The smallest of the scores [N] that at least the share `quantile`, in (0, 1), of them does not exceed."""
    rank = ceil(quantile * len(scores) - 1e-9)  # 0.55 · 100 is a little more than 55
    return float(scores.kthvalue(max(1, rank)).values)


@dataclass(frozen=True)
class Separation:
    """How well scores separate outliers, the positive class, from inliers; all in [0, 1].

    `auroc` is the chance that an outlier scores above an inlier, `aupr` the mean precision over the recall of
    outliers, `fpr_at_95_tpr` the share of inliers flagged where 95 % of the outliers are, which are `flagged` of the
    `inliers`. `fpr` and `tpr` are the curve.
    """

    auroc: float
    aupr: float
    flagged: int
    inliers: int
    fpr: list[float]
    tpr: list[float]

    @property
    def fpr_at_95_tpr(self) -> float:
        """The share of inliers that is flagged with 95 % of the outliers."""
        return self.flagged / self.inliers


def separation(inliers: Tensor, outliers: Tensor) -> Separation:
    """What the scores of inliers [N] and of outliers [M] are worth; higher scores mean further away."""
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    is_outlier = cat([zeros(len(inliers)), ones(len(outliers))]).numpy()
    scores = cat([inliers, outliers]).numpy()
    fpr, tpr, _ = roc_curve(is_outlier, scores, drop_intermediate=False)
    return Separation(
        auroc=float(roc_auc_score(is_outlier, scores)),
        aupr=float(average_precision_score(is_outlier, scores)),
        flagged=round(float(fpr[(tpr >= 0.95).argmax()]) * len(inliers)),
        inliers=len(inliers),
        fpr=fpr.tolist(),
        tpr=tpr.tolist(),
    )


@dataclass(frozen=True)
class Judged:
    """One score on images of known classes (`inliers`, [N]) and on `outliers` [M], none of them trained on.

    An image passes, is taken for an inlier, where its score is at most `threshold`.
    """

    threshold: float
    inliers: Tensor
    outliers: Tensor
    separation: Separation

    @property
    def inliers_passed(self) -> int:
        """How many inliers pass."""
        return int((self.inliers <= self.threshold).sum())

    @property
    def outliers_passed(self) -> int:
        """How many outliers pass."""
        return int((self.outliers <= self.threshold).sum())


def judge(validation: Tensor, inliers: Tensor, outliers: Tensor, quantile: float) -> Judged:
    """The scores of inliers and outliers, against the threshold that `quantile` of the validation images pass."""
    return Judged(exact_quantile(validation, quantile), inliers, outliers, separation(inliers, outliers))
