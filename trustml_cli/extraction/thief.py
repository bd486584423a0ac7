"""The base class of extraction methods, and the resources that they have besides queries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.extraction.victim import Answer, Victim


@dataclass(frozen=True)
class Means:
    """What a thief has without querying the victim.

    `images` [M, *shape] in [0, 1] are from the victim's distribution, unlabelled, and used neither for training the
    victim nor for evaluation. `student` creates a new network; `device` is where to train it; `random` is on the CPU.
    """

    images: Tensor
    student: Callable[[], nn.Module]
    device: torch.device
    random: torch.Generator


@dataclass(frozen=True, kw_only=True)
class Thief(ABC):
    """Rebuilds a classifier from its answers. Subclasses declare config keys as fields and implement `__call__`."""

    @property
    @abstractmethod
    def needs(self) -> Answer:
        """The kind of answer that the method needs."""

    @property
    def linear(self) -> bool:
        """Whether the method assumes a linear victim and cannot extract any other."""
        return False

    def comparable(self, parameters: Tensor) -> Tensor | None:
        """Parameters of a linear classifier, [K, D + 1], less what the answers leave open; None if that is too much.

        The softmax leaves one row common to all classes undetermined, labels also the scale.
        """
        return None if self.needs is Answer.labels else parameters - parameters.mean(0)

    def check(self, queries: int, images: int) -> None:  # noqa: B027
        """Raise ValueError if `queries` queries cannot be made from `images` own images. By default they can."""

    @abstractmethod
    def __call__(self, victim: Victim, queries: int, means: Means) -> nn.Module:
        """The extracted classifier, from inputs [N, *shape] in [0, 1] to logits; makes at most `queries` queries."""
