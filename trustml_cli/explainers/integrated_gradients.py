"""Integrated gradients: the gradient integrated along the straight line from a baseline to the image.

Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv 1703.01365.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, logit_gradient
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Explainer):
    """(x − x₀)·∫₀¹ ∂ logit / ∂x at x₀ + α(x − x₀) dα, a contribution.

    The integral uses Gauss-Legendre quadrature with `steps` points; completeness holds up to its error. `baseline` is
    the grey value of the default x₀, in [0, 1].
    """

    baseline: float
    steps: int

    def __post_init__(self) -> None:
        require(self, "baseline", at_least=0, at_most=1)
        require(self, "steps", at_least=1)

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return self.contributions(model, x, target, torch.full_like(x, self.baseline))

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)  # on [-1, 1]
        mean = torch.zeros_like(x)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            point = baseline + (1 + node) / 2 * (x - baseline)
            mean += weight / 2 * logit_gradient(model, point, target)
        return (x - baseline) * mean
