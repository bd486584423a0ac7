"""The base class of attacks that learn one universal perturbation for all images."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Attack, Norm
from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class UniversalAttack(Attack):
    """Learns one perturbation v with ‖v‖ ≤ ε from the attacker's own images.

    It makes at most `epochs` passes over `training_images` images. The adversarial images are x + v, clipped to [0, 1].
    The objective is the fooling rate: the share of images whose predicted class changes. So v is learnt from the
    model's predictions, without labels.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf, Norm.l2)
    access: ClassVar[Access] = Access.transfer

    training_images: int
    epochs: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "training_images", "epochs", at_least=1)

    @abstractmethod
    def learn(self, model: nn.Module, x: Tensor, epsilon: float) -> Tensor:
        """Learn the perturbation [1, C, H, W] of size at most `epsilon` from images x [n, C, H, W]."""

    @property
    def learns_from(self) -> int:
        return self.training_images

    def fit(self, model: nn.Module, x: Tensor, y: Tensor) -> "FittedUniversal":
        return FittedUniversal(norm=self.norm, target=self.target, learner=self, model=model, own=x)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        raise RuntimeError("the perturbation is learnt first: call fit(model, x, y)")


@dataclass(frozen=True, kw_only=True)
class FittedUniversal(Attack):
    """A `learner` with the attacker's `own` images and the `model`; it learns once per epsilon, on first use."""

    norms: ClassVar = UniversalAttack.norms
    access: ClassVar = UniversalAttack.access

    learner: UniversalAttack
    model: nn.Module
    own: Tensor
    learnt: dict[float, Tensor] = field(default_factory=dict)

    def perturbation(self, epsilon: float) -> Tensor:
        """The perturbation for this epsilon, [1, C, H, W]; learnt on first use, then cached."""
        if epsilon not in self.learnt:
            nothing = torch.zeros_like(self.own[:1])
            self.learnt[epsilon] = self.learner.learn(self.model, self.own, epsilon) if epsilon else nothing
        return self.learnt[epsilon]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return (x + self.perturbation(epsilon)).clamp(0, 1)


@dataclass(frozen=True)
class TransferResult:
    """A perturbation [1, C, H, W], the model that it was learnt on, and its fooling rates.

    `own` marks which of the images that it was learnt from are fooled, bool [n]. `rates` holds for each model the rate
    on the test images and that of random noise.
    """

    found_on: str
    epsilon: float
    perturbation: Tensor
    own: Tensor
    rates: dict[str, tuple[float, float]]


@torch.no_grad()
def answers(model: nn.Module, x: Tensor, batch: int = 250) -> Tensor:
    """The predicted classes of images x [n, …], int64 [n]; −1 for invalid logits (see `logits_of`)."""
    return torch.cat([predicted_classes(logits_of(model, part)) for part in torch.split(x, batch)])


def answered(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The images x with valid logits (see `logits_of`), and their predicted classes.

    Raises ValueError if there are none.
    """
    classes = answers(model, x)
    if not (classes >= 0).any():
        raise ValueError("the network answers NaN or infinity to all images that the attack would learn from")
    return x[classes >= 0], classes[classes >= 0]


def fooled(model: nn.Module, x: Tensor, v: Tensor, before: Tensor) -> Tensor:
    """Whether the predicted class of each x + v differs from `before` [n], the prediction for x; bool [n]."""
    return changed(before, answers(model, (x + v).clamp(0, 1)))


def changed(before: Tensor, after: Tensor) -> Tensor:
    """Whether the predicted classes differ, bool [n]; False for an image without a valid prediction (−1)."""
    return (after != before) & (after >= 0) & (before >= 0)
