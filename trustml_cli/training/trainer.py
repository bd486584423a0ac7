"""What every trainer is, and the row it reports for each pass over the data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import ClassVar

from torch import Tensor, nn

from trustml_cli.data.dataset import Dataset
from trustml_cli.models.model import Model
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import Hardware
from trustml_cli.training.step import CROSS_ENTROPY, TrainingStep


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of history.csv. Losses are mean cross-entropies in nats; the train ones are of augmented batches.

    Where a `TrainingStep` other than the plain one trains, they are of what it learned from, and its loss may have
    further parts. `seconds` and `images` are what training alone took and saw. Where training stops by validation data,
    their columns are filled too. `extra` are the columns of the step, as its monitor's score on training and validation
    images. Nothing of it is measured on test images: an epoch must not be chosen by what it is judged on.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    lr: float
    seconds: float
    images: int
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    extra: Mapping[str, float | None] = field(default_factory=dict)

    def columns(self) -> dict[str, float | None]:
        """The row by column."""
        row = asdict(self)
        return {**{name: row[name] for name in row if name != "extra"}, **self.extra}


Report = Callable[[Epoch], None]


def finite(loss: Tensor | float) -> float:
    """The loss as a number; `RunFailed` if it is none."""
    value = float(loss)
    if not isfinite(value):
        raise RunFailed(f"training diverged: the loss became {value}; try a smaller trainer.lr")
    return value


@dataclass(frozen=True, kw_only=True)
class Trainer(ABC):
    """Fits a network to a data set. Subclasses name their keys as fields."""

    takes_steps: ClassVar[bool] = False
    """Whether `fit` takes another step than the plain one, and goes on from weights that are there."""

    def check(self, model: Model) -> None:  # noqa: B027
        """Raise ValueError, saying which would be right, if this trainer cannot fit `model`. By default it can."""

    @abstractmethod
    def fit(
        self,
        network: nn.Sequential,
        data: Dataset,
        hardware: Hardware,
        report: Report,
        step: TrainingStep = CROSS_ENTROPY,
        networks: Sequence[nn.Module] = (),
        initialized: bool = False,
    ) -> None:
        """Train `network` in place, calling `report` after each epoch. Raises `RunFailed` if that goes wrong.

        `step` says what is learned from each batch, and `networks` are the trained ones that it needs. `initialized`
        says that the weights are those of a trained network, to go on from. A trainer that does not take steps is
        given none of the three.
        """
