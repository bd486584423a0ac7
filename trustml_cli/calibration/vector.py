"""Vector scaling: each logit has a factor and an offset of its own.

Guo, Pleiss, Sun and Weinberger 2017, arXiv 1706.04599.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.calibration.calibrator import Calibration, FittedCalibrator
from trustml_cli.system.ranges import require


class Scaled(Calibration):
    """logits · factor + offset, both of shape [K]."""

    names: ClassVar = ("factor", "offset")
    factor: Tensor | None
    offset: Tensor | None

    def forward(self, logits: Tensor) -> Tensor:
        return logits if self.factor is None or self.offset is None else logits * self.factor + self.offset


@dataclass(frozen=True, kw_only=True)
class VectorScaling(FittedCalibrator):
    """Minimises the cross-entropy of the validation images by L-BFGS, which is convex in factors and offsets.

    `penalty` is the factor of the squared distance from no calibration in the loss. Without it, the factors are not
    bounded where every validation image is right.
    """

    penalty: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "penalty", at_least=0)

    def calibration(self) -> Calibration:
        return Scaled()

    def fit(self, logits: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        factor = torch.ones(logits.shape[1], dtype=torch.float64, requires_grad=True)
        offset = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([factor, offset], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            distance = (factor - 1).square().sum() + offset.square().sum()
            value = functional.cross_entropy(logits * factor + offset, labels) + self.penalty * distance
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return {"factor": factor.detach().float(), "offset": offset.detach().float()}
