"""Gradient SHAP: gradients at random points on the ways from training images to the image.

Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions", arXiv 1705.07874; as expected gradients
in Erion, Janizek, Sturmfels, Lundberg and Lee 2021, arXiv 1906.10670.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, logit_gradient
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class GradientShap(Explainer):
    """Mean of (x − b)·∂ logit / ∂x at b + α(x − b) over `samples` draws of b and α ~ U(0, 1); a contribution.

    b is one of `references` random training images. Contributions add up to F(x) − mean F(b) up to the error of
    sampling. All images share the draws.
    """

    samples: int
    references: int

    def __post_init__(self) -> None:
        require(self, "samples", "references", at_least=1)

    @property
    def learns_from(self) -> int:
        return self.references

    def fit(self, x: Tensor) -> "FittedGradientShap":
        return FittedGradientShap(method=self, background=x)

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("it takes its background from training images first: call fit(images)")

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        return self.expected(model, x, target, baseline[None])

    def expected(self, model: nn.Module, x: Tensor, target: Tensor, baselines: Tensor) -> Tensor:
        """The mean over draws of one of `baselines` [M, N or 1, …] for images x [N, …]."""
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            baseline = baselines[torch.randint(len(baselines), ())]
            offset = x - baseline
            total += offset * logit_gradient(model, baseline + torch.rand(()).item() * offset, target)
        return total / self.samples


@dataclass(frozen=True, kw_only=True)
class FittedGradientShap(Explainer):
    """The `method` with its `background` of training images [M, C, H, W]."""

    method: GradientShap
    background: Tensor

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return self.method.expected(model, x, target, self.background.to(x)[:, None])

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        return self.method.contributions(model, x, target, baseline)

    def from_background(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        return self(model, x, target)
