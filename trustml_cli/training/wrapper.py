"""A small network around a trained one: in front of its images, or behind its logits."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class WrapperEpoch(NamedTuple):
    """What an epoch of a wrapper's training reports."""

    lr: float
    loss: float
    """Mean over the examples, before each step."""
    accuracy: float
    """Share of examples that are answered as they should be, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Wrapper(ABC):
    """Puts a part of its own around a network that is trained, frozen and not touched.

    The part is trained after the network and stored by itself. Subclasses name their keys as fields.
    """

    place: ClassVar[str] = "around"
    """Where the part is, for the name of its rows in history.csv."""

    @abstractmethod
    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
        """`network` with a fresh part before or behind it, for inputs of this shape."""

    @abstractmethod
    def part(self, wrapped: nn.Sequential) -> nn.Module:
        """The part, in what `around` made: the one that is trained and stored."""

    @property
    @abstractmethod
    def learns_from(self) -> int:
        """How many training examples `learn` is given at most."""

    @abstractmethod
    def learn(self, part: nn.Module, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[WrapperEpoch]:
        """Train `part` around `network` on inputs x [n, ...] and labels y [n].

        After each epoch `part` is in eval mode when the epoch is yielded.
        """
