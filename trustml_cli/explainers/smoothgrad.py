"""SmoothGrad: the gradient averaged over noisy copies of the image.

Smilkov, Thorat, Kim, Viégas and Wattenberg 2017, "SmoothGrad: removing noise by adding noise", arXiv 1706.03825.
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, logit_gradient


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Explainer):
    """Mean of ∂ logit / ∂x at x + n over `samples` draws of n ~ N(0, σ²), with its sign; a rate.

    `noise` is σ as a share of each image's range of brightness, as in the paper.
    """

    samples: int
    noise: float

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: must be at least 1, got {self.samples}")
        if not 0 <= self.noise < inf:
            raise ValueError(f"noise: must be at least 0 and finite, got {self.noise}")

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        flat = x.flatten(1)
        deviation = self.noise * (flat.amax(1) - flat.amin(1)).view(-1, *(1,) * (x.dim() - 1))
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            total += logit_gradient(model, x + deviation * torch.randn_like(x), target)
        return total / self.samples
