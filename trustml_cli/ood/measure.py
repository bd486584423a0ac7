"""The score threshold at a given true-positive rate of inliers, and the result of applying it."""

from dataclasses import dataclass
from math import ceil

from torch import Tensor

from trustml_cli.ood.separation import Separation, separation


def exact_quantile(scores: Tensor, quantile: float) -> float:
    """The smallest of the scores [N] that is at or above at least the share `quantile`, in (0, 1), of them."""
    rank = ceil(quantile * len(scores) - 1e-9)  # in floating point, 0.55 · 100 is slightly above 55
    return float(scores.kthvalue(max(1, rank)).values)


@dataclass(frozen=True)
class DetectionResult:
    """The scores of one detector on images of known classes (`inliers`, [N]) and on `outliers` [M], none trained on.

    An image with a score of at most `threshold` passes, i.e. is classified as an inlier.
    """

    threshold: float
    inliers: Tensor
    outliers: Tensor
    separation: Separation

    @property
    def inliers_passed(self) -> int:
        """The number of inliers that pass."""
        return int((self.inliers <= self.threshold).sum())

    @property
    def outliers_passed(self) -> int:
        """The number of outliers that pass."""
        return int((self.outliers <= self.threshold).sum())


def evaluate(validation: Tensor, inliers: Tensor, outliers: Tensor, quantile: float) -> DetectionResult:
    """Scores of inliers and outliers, with the threshold at the `quantile` of the validation scores."""
    return DetectionResult(exact_quantile(validation, quantile), inliers, outliers, separation(inliers, outliers))
