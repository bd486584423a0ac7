"""Temperature scaling: the logits are divided by one number.

Guo, Pleiss, Sun and Weinberger 2017, arXiv 1706.04599.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.calibration.calibrator import Calibration, FittedCalibrator

COLDEST, HOTTEST = 0.05, 100.0  # where every validation image is right, the loss falls until the temperature is 0
FAR = -1e4  # log-odds below the largest logit; further ones have no probability in float64
PRECISE = 1e-10  # relative width of the bracket at which the search ends


class DividedByTemperature(Calibration):
    """logits / T: the order of the classes stays as it is."""

    names: ClassVar = ("temperature",)
    temperature: Tensor | None

    def forward(self, logits: Tensor) -> Tensor:
        return logits if self.temperature is None else logits / self.temperature


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling(FittedCalibrator):
    """Chooses the temperature with the least negative log-likelihood of the validation images."""

    def calibration(self) -> Calibration:
        return DividedByTemperature()

    def fit(self, logits: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        return {"temperature": torch.tensor(best_temperature(logits, labels))}


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T in [`COLDEST`, `HOTTEST`] that minimises the cross-entropy of logits / T with labels [N].

    The loss is convex in 1/T. Newton's method, kept within a bracket by bisection; logits [N, K] are float64.
    """
    odds = (logits - logits.amax(1, keepdim=True)).clamp(min=FAR)
    right = odds.gather(1, labels[:, None])[:, 0]
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    while high / low > 1 + PRECISE:
        probability = (inverse * odds).softmax(1)
        mean = (probability * odds).sum(1)
        slope = (mean - right).mean().item()
        curvature = ((probability * odds.square()).sum(1) - mean.square()).mean().item()
        if slope == 0:
            break
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else 0.0
        previous, inverse = inverse, step if low < step < high else sqrt(low * high)
        if abs(inverse / previous - 1) < PRECISE:
            break
    return 1 / inverse
