"""SmoothGrad: the gradient averaged over noisy copies of the image.

Smilkov, Thorat, Kim, Viégas and Wattenberg 2017, "SmoothGrad: removing noise by adding noise", arXiv 1706.03825.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, Unsuitable, logit_gradient
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Explainer):
    """Mean of ∂ logit / ∂x at x + n over `samples` draws of n ~ N(0, σ²), signed; a rate.

    `noise` is σ as a share of each image's range (maximum − minimum), as in the paper.
    """

    samples: int
    noise: float

    def __post_init__(self) -> None:
        require(self, "samples", at_least=1)
        require(self, "noise", at_least=0)

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        if len(shape) != 3:
            raise Unsuitable("needs images: the columns of a table have ranges of their own")

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        flat = x.flatten(1)
        deviation = self.noise * (flat.amax(1) - flat.amin(1)).view(-1, *(1,) * (x.dim() - 1))
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            total += logit_gradient(model, x + deviation * torch.randn_like(x), target)
        return total / self.samples
