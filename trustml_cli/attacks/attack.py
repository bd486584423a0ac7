"""What every attack is, and the gradient that most of them follow."""

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
    """The sum of the changes' sizes."""
    l0 = "l0"
    """How many values change."""


class Access(Enum):
    """What an attack may use of the model."""

    white_box = "white_box"
    """Everything: logits and gradients on the images that it changes."""
    query = "query"
    """Logits of images that it chooses: a black box."""
    transfer = "transfer"
    """Everything, but on images of the attacker's own, none of those that it changes."""
    none = "none"


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Makes images that a model misreads. Subclasses name further keys as fields and implement `__call__`.

    `norm` is the one in which epsilon bounds the perturbation; one that is not among the class's `norms` is a
    ValueError. `target` is the class that the images shall be taken for, by number; None for any wrong one. (A config
    may give its name; whoever knows the names puts the number in its place.)

    Each image is attacked as if it were alone in its batch. Random choices are drawn from torch's global random
    numbers, and nowhere else: whoever calls decides on their seed.

    An attack that must learn something first is an error to call before it is `fit`. What it has learnt does not
    look at the images it is then shown, so it is weaker than an attack that does: a model that stands it is not robust.
    """

    norms: ClassVar[tuple[Norm, ...]]
    access: ClassVar[Access] = Access.white_box
    optimal: ClassVar[bool] = False
    """Whether it is proven that no attack within the same budget fells more images."""

    norm: Norm
    target: int | str | None

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            known = ", ".join(norm.value for norm in self.norms)
            raise ValueError(f"norm: must be one of {known} for this attack, got {self.norm.value}")

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise ValueError where the attack is not for this model of images of this shape."""

    def ball(self, x: Tensor, epsilon: float) -> tuple[Tensor, float] | None:
        """Centres of x's shape and the radius in `norm` of the balls that it keeps to, beside [0, 1].

        They are x and `epsilon` themselves unless the attack may do less; None where what it may do is no ball.
        """
        return x, epsilon

    @property
    def learns_from(self) -> int:
        """How many images of the attacker's own it wants for `fit`; 0 where it learns nothing."""
        return 0

    def fit(self, model: nn.Module, x: Tensor, y: Tensor) -> "Attack":
        """The attack with what it learns about `model` from the attacker's own images x [n, C, H, W] of classes y.

        It may ask the model only later, when it is told epsilon.
        """
        return self

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        """Adversarial images of x's shape, in [0, 1] and within `epsilon` of x.

        `model` maps images [N, C, H, W] in [0, 1] to logits [N, K]; `y` holds the true classes, int64 [N].
        """

    def curve(self, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float]) -> Iterator[Tensor]:
        """Adversarial images for one epsilon after the other; attacks that can share work between them do."""
        for epsilon in epsilons:
            yield self(model, x, y, epsilon)

    @property
    def shares_work(self) -> bool:
        """Whether a curve costs less than a call for each of its epsilons."""
        return type(self).curve is not Attack.curve

    def loss_gradient(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The direction in which the attack's goal comes nearer: away from y, or towards the target."""
        if self.target is None:
            return input_gradient(model, x, y)
        return -input_gradient(model, x, torch.full_like(y, int(self.target)))


def input_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The direction of the gradient of each image's cross-entropy with `labels` by its own pixels, of x's shape.

    By the logits, that gradient is the softmax p, less one at the label: 1 − p(label) times the softmax over the other
    classes alone, less one at the label. Where a model is sure of itself the factor rounds to 0 in float32, and the
    gradient as first published vanishes (`losses.Loss.ce_float32` climbs that one). So the factor, which is the same
    for all pixels of an image and above 0, is left out.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = logits_of(model, x)
    others = logits.detach().scatter(1, labels[:, None], -torch.inf).softmax(1)
    by_logits = others.scatter(1, labels[:, None], -1.0)
    with torch.enable_grad():
        toward = (logits * by_logits).sum()  # given by_logits to start from, torch would import its compiler's algebra
    return gradient_wrt(x, toward)


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """Values [N] in a shape that multiplies with x [N, …] image by image."""
    return values.view(-1, *(1,) * (x.dim() - 1))
