"""Saliency maps: the absolute gradient of a logit with respect to each pixel.

Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks", arXiv 1312.6034.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, logit_gradient


@dataclass(frozen=True, kw_only=True)
class Saliency(Explainer):
    """|∂ logit / ∂x|: at least 0, without a sign, and therefore not complete."""

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return logit_gradient(model, x, target).abs()
