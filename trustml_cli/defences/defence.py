"""The base classes of defences, and their shared training functions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.pgd import PGD
from trustml_cli.models.classifier import Classifier
from trustml_cli.models.inference import NO_GRADIENT
from trustml_cli.system.ranges import require
from trustml_cli.system.recipe import CHANGES_NOTHING
from trustml_cli.training.step import CROSS_ENTROPY, Monitor, TrainingState, TrainingStep
from trustml_cli.training.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class Defence:
    """A defence against attacks; this base class does nothing, and subclasses add parameters as fields."""

    needs_images: ClassVar[bool] = False
    """Whether it supports only images, not tabular data."""

    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        """The untrained module that replaces `network`, for images of this shape."""
        return network


@dataclass(frozen=True, kw_only=True)
class InFront(Defence, Wrapper, ABC):
    """A separate network in front of a classifier; the classifier is trained as usual and then frozen."""

    needs_images: ClassVar = True
    place: ClassVar = "in front of"

    @abstractmethod
    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
        """The preceding network followed by `network`."""

    def part(self, wrapped: nn.Sequential) -> nn.Module:
        return wrapped[0]


@dataclass(frozen=True, kw_only=True)
class RobustTraining(Defence, TrainingStep, ABC):
    """A training step against perturbations of size at most `epsilon` (pixel units) in `norm`.

    After each epoch the accuracy on `monitor_images` training images under `probe` is reported; this does not affect
    the training. With early stopping, all validation images are attacked, and the weights with the highest accuracy are
    kept.
    """

    needs_images: ClassVar = True
    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf, Norm.l2, Norm.l1)

    norm: Norm
    epsilon: float
    monitor_images: int = field(metadata=CHANGES_NOTHING)

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            known = ", ".join(norm.value for norm in self.norms)
            raise ValueError(f"norm: must be one of {known} for this defence, got {self.norm.value}")
        require(self, "epsilon", above=0)
        require(self, "monitor_images", at_least=1)

    def check(self, network: nn.Module) -> None:
        """Raise ValueError if a network made by `Model.build` has no gradients by the images."""
        if isinstance(network, Classifier) and not network.image_gradient:
            raise ValueError(f"{NO_GRADIENT}; use defence=none")

    @property
    def monitor(self) -> Monitor:
        """Reports the accuracy under `probe`."""
        return Monitor("robust_accuracy", self.monitor_images, self.correct_under_attack)

    def correct_under_attack(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Whether each image x [N, C, H, W] of class y [N] is classified correctly under `probe`, bool [N]."""
        x_adv = self.probe(network, x, y, self.epsilon)
        with torch.no_grad():
            correct: Tensor = network(x_adv).argmax(1) == y
        return correct

    @property
    def probe(self) -> PGD:
        """PGD with ten steps from a random start."""
        return PGD(
            norm=self.norm,
            target=None,
            loss=Loss.ce,
            steps=10,
            step_size=None,
            rel_path_length=2.5,
            random_start=True,
            restarts=1,
        )


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put the network in eval mode during an attack, so that images are attacked independently of their batch.

    The evaluation attacks the network in eval mode too. In training mode BatchNorm would couple the images of a batch,
    and its running statistics would include the intermediate iterates. The TRADES authors do the same.
    """
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def learn_both(state: TrainingState, x: Tensor, x_adv: Tensor, y: Tensor, clean_share: float) -> tuple[Tensor, Tensor]:
    """Take one step on `clean_share` · loss(x) + (1 − `clean_share`) · loss(x_adv); return loss and logits of x_adv."""
    if clean_share == 0:
        return CROSS_ENTROPY(state, x_adv, y)

    def closure() -> tuple[Tensor, Tensor]:
        clean, attacked = state.network(x), state.network(x_adv)
        loss = clean_share * state.cross_entropy(clean, y) + (1 - clean_share) * state.cross_entropy(attacked, y)
        return loss, attacked

    return state.step(closure)


def check_share(clean_share: float) -> None:
    """Raise ValueError unless 0 ≤ `clean_share` < 1, so that the adversarial images have a positive weight."""
    if not 0 <= clean_share < 1:
        raise ValueError(f"clean_share: must be at least 0 and below 1, got {clean_share:g}")
