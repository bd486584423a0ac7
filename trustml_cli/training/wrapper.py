"""A small network added to a trained one: before its input, or after its logits."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class WrapperEpoch(NamedTuple):
    """Learning rate, loss and accuracy of one epoch of a wrapper's training."""

    lr: float
    loss: float
    """Mean over the examples, each computed before its batch's step."""
    accuracy: float
    """Share of examples with the desired prediction, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Wrapper(ABC):
    """Adds a part before or after a trained network, whose weights stay frozen.

    The part is trained after the network and stored separately. Subclasses declare their keys as fields.
    """

    place: ClassVar[str] = "around"
    """The position of the part, for the name of its rows in history.csv."""

    @abstractmethod
    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
        """`network` with an untrained part before or after it, for inputs of this shape."""

    @abstractmethod
    def part(self, wrapped: nn.Sequential) -> nn.Module:
        """The part that is trained and stored, in a result of `around`."""

    @property
    @abstractmethod
    def learns_from(self) -> int:
        """The maximum number of training examples passed to `learn`."""

    @abstractmethod
    def learn(self, part: nn.Module, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[WrapperEpoch]:
        """Train `part` with `network` on inputs x [n, ...] and labels y [n].

        `part` is in eval mode whenever an epoch is yielded.
        """
