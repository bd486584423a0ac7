"""The weights of a linear model: the reference for all other explainers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, Unsuitable, logit_gradient, logit_of
from trustml_cli.models.linear import linear_parameters

TOLERANCE = 1e-4  # relative to the largest logit; allows for float32 rounding
NOT_LINEAR = "needs a linear model, such as model=logistic"


@dataclass(frozen=True, kw_only=True)
class LinearWeights(Explainer):
    """The weight row of the class, in pixel space: the change of the logit per unit of a pixel.

    With F(x) = w·x + b, contributions w·(x − x₀) add up to F(x) − F(x₀) for every baseline x₀: it is complete.
    Normalisation before the linear layer is folded in. Raises `Unsuitable` for a model that is not linear.
    """

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        try:
            linear_parameters(model, shape)
        except ValueError as error:
            raise Unsuitable(NOT_LINEAR) from error

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        origin = torch.zeros_like(x)
        weights = logit_gradient(model, origin, target)
        with torch.no_grad():
            logits = logit_of(model, x, target)
            linear = (weights * x).flatten(1).sum(1) + logit_of(model, origin, target)
        if not torch.allclose(linear, logits, rtol=0, atol=TOLERANCE * (1 + logits.abs().max().item())):
            raise Unsuitable(NOT_LINEAR)
        return weights
