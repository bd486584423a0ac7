"""A small network added to a trained one: before its input, or after its logits."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, random_subset
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.system.hardware import Hardware, seeded
from trustml_cli.system.progress import Progress
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Epoch, Report, finite


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


def fit_around(
    wrapper: Wrapper, network: nn.Module, data: Dataset, seed: int, hardware: Hardware, report: Report
) -> nn.Module:
    """Train the part that `wrapper` adds to the trained `network`, on random training examples of `data`; return it.

    Each epoch is passed to `report`, with loss and accuracy of network and part together on the test examples.
    """
    with seeded(seed):
        split = random_subset(data.train, wrapper.learns_from, seed)
        x, y = next(batches(split, len(split), hardware.device))
        wrapped = wrapper.around(network, data.shape).to(hardware.device)
        part = wrapper.part(wrapped)
        start = perf_counter()
        bar = Progress(wrapper.learn(part, network, x, y), desc=f"training the {wrapper.place}", unit="epoch")
        for number, (lr, loss, accuracy) in enumerate(bar, start=1):
            bar.tell(loss=f"{finite(loss):.3f}", accuracy=in_percent(accuracy))
            seconds = perf_counter() - start
            answers = predict(wrapped, data.test, hardware)
            report(
                Epoch(
                    epoch=number,
                    train_loss=finite(loss),
                    train_accuracy=accuracy,
                    test_loss=finite(answers.loss),
                    test_accuracy=answers.accuracy,
                    lr=lr,
                    seconds=seconds,
                    images=len(x),
                )
            )
            start = perf_counter()
        return part
