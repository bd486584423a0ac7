"""What every explainer is, and the gradient that most of them are made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Unsuitable(Exception):
    """An explainer cannot serve a model; says what it needs."""


@dataclass(frozen=True, kw_only=True)
class Explainer(ABC):
    """Says of each pixel how much it has to do with a logit. Subclasses name their keys as fields.

    Some say what a logit would gain for each unit of a pixel (a rate), others what it has gained from it already (a
    contribution, in logits), and bring their own `contributions`. A rate's are products with the distance.
    """

    @property
    def is_rate(self) -> bool:
        """Whether the map has to be multiplied by the image to say what the pixels add to the logit."""
        return type(self).contributions is Explainer.contributions

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise `Unsuitable` where it cannot serve `model`, ValueError where its keys do not fit images of `shape`."""

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        """Attribution of the logits of classes `target`, int64 [N], to images x [N, C, H, W]; of x's shape."""

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        """What each pixel adds to the logit on the way from images `baseline` to x, all of one shape.

        An explainer is complete where they add up to F(x) − F(baseline). By default they are rates times distances.
        """
        return self(model, x, target) * (x - baseline)


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
