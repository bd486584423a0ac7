"""Input times gradient: the contribution of each pixel to the local linearisation of the model.

Shrikumar, Greenside, Shcherbina and Kundaje 2016, "Not Just a Black Box", arXiv 1605.01713.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, logit_gradient


@dataclass(frozen=True, kw_only=True)
class InputXGradient(Explainer):
    """(x − x₀)·∂ logit / ∂x, with black for x₀; a contribution, complete where the model is linear."""

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return self.contributions(model, x, target, torch.zeros_like(x))

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        return (x - baseline) * logit_gradient(model, x, target)
