"""What every defence is, and what it is given to train a network with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar, Protocol

from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.pgd import PGD
from trustml_cli.identity import CHANGES_NOTHING


class Learner(Protocol):
    """A network in training, and the steps that its optimiser takes."""

    network: nn.Module

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step down the cross-entropy of images x and labels y; returns loss and logits from before it."""

    def descend(self, judge: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """One step down the loss that `judge` returns with the logits; returns both."""

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of `step`, a mean over the images."""


Lesson = Callable[[Learner, Tensor, Tensor], tuple[Tensor, Tensor]]
"""What a network learns from a batch of images x [N, C, H, W] and labels y [N]; returns the loss and the logits."""


def learn(learner: Learner, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The lesson without a defence."""
    return learner.step(x, y)


@dataclass(frozen=True, kw_only=True)
class Defence:
    """Makes a network resist attacks. This one does nothing; subclasses name their keys as fields."""

    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        """What is asked in place of `network` about images of this shape; nothing in it is trained yet."""
        return network


@dataclass(frozen=True, kw_only=True)
class InFront(Defence, ABC):
    """A network of its own in front of a classifier that is trained as usual, frozen, and not touched."""

    @abstractmethod
    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
        """What stands in front, and `network`."""

    @property
    @abstractmethod
    def learns_from(self) -> int:
        """How many training images it wants for `learn`."""

    @abstractmethod
    def learn(self, front: nn.Module, network: nn.Module, x: Tensor) -> Iterator[tuple[float, float, float]]:
        """Train `front` from images x [n, C, H, W], so that `network` stands attacks behind it.

        After each epoch it is in eval mode, and yields its learning rate, the mean loss, and the share of training
        images that are answered as they should be.
        """


@dataclass(frozen=True, kw_only=True)
class RobustTraining(Defence, ABC):
    """A way to train that has an attacker in mind who may change an image by `epsilon` (pixel units) in `norm`.

    After each epoch `images` training images are attacked by the same `probe`, to be looked at and nothing else. Where
    training stops by validation images, all of these are, and the network is kept that stands best.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf, Norm.l2, Norm.l1)

    norm: Norm
    epsilon: float
    images: int = field(metadata=CHANGES_NOTHING)

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            known = ", ".join(norm.value for norm in self.norms)
            raise ValueError(f"norm: must be one of {known} for this defence, got {self.norm.value}")
        if not (self.epsilon > 0 and isfinite(self.epsilon)):
            raise ValueError(f"epsilon: must be above 0 and finite, got {self.epsilon:g}")
        if self.images < 1:
            raise ValueError(f"images: must be at least 1, got {self.images}")

    @property
    def steps_per_batch(self) -> int:
        """How many steps the optimiser takes for each batch; the epochs are divided by it."""
        return 1

    @property
    def static_networks(self) -> int:
        """How many trained networks of the same kind, without a defence, `lessons` needs."""
        return 0

    @abstractmethod
    def lessons(self, static: Sequence[nn.Module]) -> Lesson:
        """How to learn from one batch after the other, in a training that begins now."""

    @property
    def probe(self) -> PGD:
        """PGD in ten steps from a random start."""
        return PGD(
            norm=self.norm,
            target=None,
            loss=Loss.ce,
            steps=10,
            step_size=None,
            reach=2.5,
            random_start=True,
            restarts=1,
        )


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """The network in eval mode while it is attacked, so that each image is attacked as if alone in its batch.

    That is the network that will be attacked later; in training mode BatchNorm would tie the images of a batch
    together and its statistics would follow the attack's intermediate steps. The TRADES authors do it so too.
    """
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def learn_both(learner: Learner, x: Tensor, x_adv: Tensor, y: Tensor, clean_share: float) -> tuple[Tensor, Tensor]:
    """One step down `clean_share` · loss(x) + (1 − `clean_share`) · loss(x_adv); the logits are those of x_adv."""
    if clean_share == 0:
        return learner.step(x_adv, y)

    def judge() -> tuple[Tensor, Tensor]:
        clean, attacked = learner.network(x), learner.network(x_adv)
        loss = clean_share * learner.cross_entropy(clean, y) + (1 - clean_share) * learner.cross_entropy(attacked, y)
        return loss, attacked

    return learner.descend(judge)


def check_share(clean_share: float) -> None:
    """Raise ValueError for a share of the loss that leaves nothing of the attacked images."""
    if not 0 <= clean_share < 1:
        raise ValueError(f"clean_share: must be at least 0 and below 1, got {clean_share:g}")
