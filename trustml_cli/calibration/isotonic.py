"""Isotonic regression of each class against the others.

Zadrozny and Elkan 2002, Transforming classifier scores into accurate multiclass probability estimates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.calibration.calibrator import Calibration, FittedCalibrator


class Stepwise(Calibration):
    """The log of a monotone, piecewise linear function of each class's probability, normalised over the classes.

    `place` and `height` [K, M] are its knots; classes with fewer knots repeat their last.
    """

    names: ClassVar = ("place", "height")
    place: Tensor | None
    height: Tensor | None

    def forward(self, logits: Tensor) -> Tensor:
        if self.place is None or self.height is None:
            return logits
        probability = logits.softmax(1).T.contiguous()
        after = torch.searchsorted(self.place, probability).clamp(1, self.place.shape[1] - 1)
        (left, right), (low, high) = ((x.gather(1, after - 1), x.gather(1, after)) for x in (self.place, self.height))
        share = ((probability - left) / (right - left).clamp(min=torch.finfo(logits.dtype).tiny)).clamp(0, 1)
        calibrated = (low + share * (high - low)).T
        return (calibrated / calibrated.sum(1, keepdim=True)).log()


@dataclass(frozen=True, kw_only=True)
class IsotonicRegression(FittedCalibrator):
    """Fits P(class k) as a monotone function of the network's probability of k, for each class k.

    No class is impossible: by Laplace's rule for N images, the function of one class is at most 1 − 1/(N + 2), and at
    least the (K − 1)-th part of 1/(N + 2), since the other classes of K share the rest.
    """

    def calibration(self) -> Calibration:
        return Stepwise()

    def fit(self, logits: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        from sklearn import isotonic

        probability, rest = logits.float().softmax(1).double().numpy(), 1 / (len(labels) + 2)
        least = rest / (logits.shape[1] - 1)
        places, heights = [], []
        for number in range(logits.shape[1]):
            one = isotonic.IsotonicRegression(y_min=least, y_max=1 - rest)
            one.fit(probability[:, number], (labels == number).double().numpy())
            places.append(torch.tensor(one.X_thresholds_, dtype=torch.float32))
            heights.append(torch.tensor(one.y_thresholds_, dtype=torch.float32))
        return {"place": last_repeated(places), "height": last_repeated(heights)}


def last_repeated(rows: list[Tensor]) -> Tensor:
    """Rows of several lengths as one tensor [K, M], M at least 2; shorter ones repeat their last value."""
    longest = max(2, *map(len, rows))
    return torch.stack([torch.cat([row, row[-1:].expand(longest - len(row))]) for row in rows])
