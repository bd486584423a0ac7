"""What every method of extraction is, and what it may have of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.extraction.victim import Answer, Victim


@dataclass(frozen=True)
class Means:
    """What a thief has without asking the victim.

    `images` [M, *shape] in [0, 1] are of the victim's kind, but neither trained nor measured on, and have no labels.
    `student` makes a fresh network of the thief's choice; `device` is where to train it; `random` is on the CPU.
    """

    images: Tensor
    student: Callable[[], nn.Module]
    device: torch.device
    random: torch.Generator


@dataclass(frozen=True, kw_only=True)
class Thief(ABC):
    """Rebuilds a classifier from its answers. Subclasses name their keys as fields and implement `__call__`."""

    @property
    @abstractmethod
    def needs(self) -> Answer:
        """The kind of answer that it works from."""

    @property
    def linear(self) -> bool:
        """Whether it takes the victim for a linear classifier, so that it can steal no other."""
        return False

    def comparable(self, parameters: Tensor) -> Tensor | None:
        """Parameters of a linear classifier, [K, D + 1], less what the answers hide; None where that is too much.

        The softmax hides one row that all classes share, labels hide the scale as well.
        """
        return None if self.needs is Answer.labels else parameters - parameters.mean(0)

    def check(self, queries: int, images: int) -> None:  # noqa: B027
        """Raise ValueError where so many `queries` cannot be made from so many own `images`. By default they can."""

    @abstractmethod
    def __call__(self, victim: Victim, queries: int, means: Means) -> nn.Module:
        """The stolen classifier, from inputs [N, *shape] in [0, 1] to logits; asks at most `queries` times."""
