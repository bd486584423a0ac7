"""What every trainer is, and the row it reports for each pass over the data."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from torch import Tensor, nn

from trustml_cli.data.dataset import Dataset
from trustml_cli.errors import RunFailed
from trustml_cli.hardware import Hardware
from trustml_cli.models.model import Model


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of history.csv. Losses are mean cross-entropies in nats; the train ones are of augmented batches.

    Where a defence trains, those batches are attacked, its loss may have further parts, and `train_robust_accuracy` is
    that of a few training images, not augmented, under an attack of their own. `seconds` and `images` are what training
    alone took and saw. Where training stops by validation data, their columns are filled too. Nobody attacks test
    images here: whoever chose epochs by them would measure on what they chose by.
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
    train_robust_accuracy: float | None = None
    validation_robust_accuracy: float | None = None


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

    def check(self, model: Model) -> None:  # noqa: B027
        """Raise ValueError, saying which would be right, if this trainer cannot fit `model`. By default it can."""

    @abstractmethod
    def fit(self, network: nn.Sequential, data: Dataset, hardware: Hardware, report: Report) -> None:
        """Train `network` in place, calling `report` after each epoch. Raises `RunFailed` if that goes wrong."""
