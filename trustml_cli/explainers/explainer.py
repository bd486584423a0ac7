"""The base class of explainers, and the gradient that most of them use."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


class Unsuitable(Exception):
    """The explainer does not support a model; the message says what it needs."""


@dataclass(frozen=True, kw_only=True)
class Explainer(ABC):
    """Attributes a logit to the pixels of images, or to the features of a table's rows.

    Subclasses declare their config keys as fields.

    A map holds either rates (change of the logit per unit of a pixel) or contributions (the pixel's share of the logit,
    in logits). Rates become contributions by multiplication with the distance from the baseline; explainers that return
    contributions override `contributions`.
    """

    gradients: ClassVar[bool] = True
    """Whether it needs gradients by the images."""
    additive: ClassVar[bool] = True
    """Whether its contributions are meant to add up; if not, completeness is not measured."""

    @property
    def is_rate(self) -> bool:
        """Whether the map holds rates, which have to be multiplied by the image to give contributions."""
        return type(self).contributions is Explainer.contributions

    @property
    def learns_from(self) -> int:
        """The number of training images that `fit` needs; 0 if it needs none."""
        return 0

    def fit(self, x: Tensor) -> "Explainer":
        """The explainer with what it takes from training images x [n, C, H, W]; by default itself."""
        return self

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise `Unsuitable` if `model` is not supported, ValueError if the keys do not fit images of `shape`."""

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        """Attribution of the logits of classes `target`, int64 [N], to images x [N, C, H, W]; of x's shape."""

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        """The contribution of each pixel to the change of the logit from images `baseline` to x, all of one shape.

        An explainer is complete if they add up to F(x) − F(baseline). The default is the rates times x − baseline.
        """
        return self(model, x, target) * (x - baseline)

    def from_background(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        """The contributions counted from the training examples that `fit` was given, if any, else from `baseline`."""
        return self.contributions(model, x, target, baseline)


def logit_of(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Each image's logit of its class in `target`, [N]."""
    return model(x).gather(1, target[:, None])[:, 0]  # type: ignore[no-any-return]


def logit_gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Gradient of each image's logit of class `target` by its own pixels, of x's shape."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        total = logit_of(model, x, target).sum()
    (gradient,) = torch.autograd.grad(total, x)
    return gradient
