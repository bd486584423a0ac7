"""The base class of all attacks, and the input gradient that most of them use."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.models.inference import gradient_wrt, logits_of


class Norm(Enum):
    """How the size of a perturbation is measured, in pixel units."""

    linf = "linf"
    """The largest change of any value."""
    l2 = "l2"
    """The root of the sum of squared changes."""
    l1 = "l1"
    """The sum of the absolute changes."""
    l0 = "l0"
    """The number of values that change."""


class Access(Enum):
    """The attacker's access to the model."""

    white_box = "white_box"
    """Logits and gradients on the attacked images."""
    query = "query"
    """Logits of images of the attacker's choice (black box)."""
    transfer = "transfer"
    """Logits and gradients, but only on the attacker's own images, not on the attacked ones."""
    none = "none"


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Computes images that a model misclassifies; subclasses add parameters as fields and implement `__call__`.

    `norm` is the norm in which epsilon bounds the perturbation; a norm that is not in the class's `norms` raises
    ValueError. `target` is the index of the target class, or None for an untargeted attack. (A config may give the
    class name; it is replaced by the index before the attack runs.)

    Images are attacked independently of the rest of their batch. All random numbers come from torch's global
    generator, so the caller sets the seed.

    Calling an attack that needs training before `fit` raises an error. Such an attack does not adapt to the attacked
    images and is therefore weaker than one that does: withstanding it does not show that a model is robust.
    """

    norms: ClassVar[tuple[Norm, ...]]
    access: ClassVar[Access] = Access.white_box
    optimal: ClassVar[bool] = False
    """Whether it is proven that no attack within the same budget succeeds on more images."""

    norm: Norm
    target: int | str | None

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            known = ", ".join(norm.value for norm in self.norms)
            raise ValueError(f"norm: must be one of {known} for this attack, got {self.norm.value}")

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise ValueError if the attack does not support this model or this image shape."""

    def ball(self, x: Tensor, epsilon: float) -> tuple[Tensor, float] | None:
        """Centres (of x's shape) and radius in `norm` of the balls that contain the allowed images, before clipping.

        By default x and `epsilon`; different for an attack with further constraints; None if the allowed set is not a
        ball.
        """
        return x, epsilon

    @property
    def learns_from(self) -> int:
        """The number of attacker's images that `fit` needs; 0 if the attack needs no training."""
        return 0

    @property
    def white_box(self) -> "Attack | None":
        """The attack with full access to the network that this one stands in for; None if there is none."""
        return None

    def fit(self, model: nn.Module, x: Tensor, y: Tensor) -> "Attack":
        """Return the attack trained against `model` on the attacker's own images x [n, C, H, W] of classes y.

        The training may be deferred to the first call, when epsilon is known.
        """
        return self

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        """Adversarial images of x's shape, in [0, 1] and within `epsilon` of x.

        `model` maps images [N, C, H, W] in [0, 1] to logits [N, K]; `y` holds the true classes, int64 [N].
        """

    def curve(self, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float]) -> Iterator[Tensor]:
        """Yield the adversarial images for each epsilon in turn; attacks override it to share work between them."""
        for epsilon in epsilons:
            yield self(model, x, y, epsilon)

    @property
    def shares_work(self) -> bool:
        """Whether `curve` is cheaper than one call per epsilon."""
        return type(self).curve is not Attack.curve

    def loss_gradient(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The ascent direction of the attack's objective: away from y, or towards the target; of x's shape."""
        if self.target is None:
            return input_gradient(model, x, y)
        return -input_gradient(model, x, torch.full_like(y, int(self.target)))


def input_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The input gradient of each image's cross-entropy with `labels`, up to a positive factor; of x's shape.

    The gradient with respect to the logits is p − onehot(label) for softmax probabilities p. It equals 1 − p(label)
    times (the softmax over the other classes − onehot(label)). For a confident model the factor 1 − p(label) rounds to
    0 in float32, and the gradient vanishes (as in `losses.Loss.ce_float32`). The factor is positive and the same for
    all pixels of an image, so it is left out.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = logits_of(model, x)
    others = logits.detach().scatter(1, labels[:, None], -torch.inf).softmax(1)
    by_logits = others.scatter(1, labels[:, None], -1.0)
    with torch.enable_grad():
        toward = (logits * by_logits).sum()  # passing by_logits as grad_outputs would make torch import sympy
    return gradient_wrt(x, toward)


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """Reshape values [N] so that they broadcast over the images x [N, …]."""
    return values.view(-1, *(1,) * (x.dim() - 1))
