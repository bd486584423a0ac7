"""The threshold that lets a given share of inliers pass, and what scores are worth with it and without it."""

from dataclasses import dataclass
from math import ceil

from torch import Tensor

from trustml_cli.ood.separation import Separation, separation


def exact_quantile(scores: Tensor, quantile: float) -> float:
    """The smallest of the scores [N] that at least the share `quantile`, in (0, 1), of them does not exceed."""
    rank = ceil(quantile * len(scores) - 1e-9)  # 0.55 · 100 is a little more than 55
    return float(scores.kthvalue(max(1, rank)).values)


@dataclass(frozen=True)
class DetectionResult:
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


def evaluate(validation: Tensor, inliers: Tensor, outliers: Tensor, quantile: float) -> DetectionResult:
    """The scores of inliers and outliers, against the threshold that `quantile` of the validation images pass."""
    return DetectionResult(exact_quantile(validation, quantile), inliers, outliers, separation(inliers, outliers))
