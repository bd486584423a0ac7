"""The base class of trainers, and the row that they report for each epoch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, ClassVar

from torch import Tensor, nn

from trustml_cli.data.dataset import Dataset
from trustml_cli.models.classifier import Classifier
from trustml_cli.models.model import Model
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import Hardware
from trustml_cli.training.step import CROSS_ENTROPY, TrainingStep


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """A row of history.csv within an epoch, after `step` batches, with the columns of `Epoch`.

    Training values are of one batch, `lr` was used for it, and test values are of up to `trainer.log_images` images.
    """

    step: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of history.csv. Losses are mean cross-entropies in nats; training values are of augmented batches.

    With a `TrainingStep` other than `CROSS_ENTROPY` they are of the inputs that it trains on, and its loss may have
    further terms. `seconds` and `images` count training alone. The validation columns are filled with early stopping.
    `step` is the number of batches so far, None where there are none, `lr` the learning rate of the last one, and
    `iterations` are the rows within the epoch. `extra` holds the columns of the step, such as its monitor's score on
    training and validation images. The monitor never uses test images, because epochs are selected by it.
    """

    epoch: int
    step: int | None = None
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
    iterations: Sequence[Iteration] = ()

    @property
    def values(self) -> dict[str, float | None]:
        """The row of the whole epoch, by column."""
        row = asdict(self)
        return {**{name: row[name] for name in row if name not in ("extra", "iterations")}, **self.extra}

    @property
    def rows(self) -> list[dict[str, float | None]]:
        """All rows of history.csv, by column: those within the epoch, then that of the epoch."""
        return [*({"epoch": self.epoch, **asdict(each)} for each in self.iterations), self.values]


Report = Callable[[Epoch], None]


def finite(loss: Tensor | float) -> float:
    """The loss as a float; raises `RunFailed` if it is not finite."""
    value = float(loss)
    if not isfinite(value):
        raise RunFailed(f"training diverged: the loss became {value}; try a smaller trainer.lr")
    return value


@dataclass(frozen=True, kw_only=True)
class Trainer(ABC):
    """Trains a network on a data set. Subclasses declare their keys as fields."""

    trains: ClassVar[bool] = True
    """Whether it trains at all; otherwise networks are taken as they were published, or from a checkpoint."""
    takes_steps: ClassVar[bool] = False
    """Whether `fit` supports steps other than `CROSS_ENTROPY`."""
    continues: ClassVar[bool] = False
    """Whether `fit` can go on from given weights."""
    private: ClassVar[bool] = False
    """Whether it bounds what the network gives away of one training example."""

    def check(self, model: Model) -> None:  # noqa: B027
        """Raise ValueError, with a remedy, if this trainer cannot train `model`. By default it can."""

    def rehearse(self, network: Classifier, data: Dataset) -> None:  # noqa: B027
        """Raise `InputError` if the untrained network cannot be trained on `data`, before anything is trained."""

    def check_network(self, network: nn.Module) -> None:  # noqa: B027
        """Raise ValueError, with a remedy, if it cannot train a network with these layers. By default it can."""

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
        """Train `network` in place, calling `report` after each epoch. Raises `RunFailed` if training fails.

        `step` is the training step on each batch, and `networks` are the trained networks that it needs. `initialized`
        means that the weights are those of a trained network. A trainer that neither `takes_steps` nor `continues` is
        given none of the three.
        """

    def columns(self, examples: int, history: Sequence[Epoch]) -> Mapping[str, Any]:
        """Further columns of metrics.csv about the training on so many examples, such as a privacy guarantee."""
        return {}

    def checks(self, examples: int) -> Sequence[tuple[str, bool, str]]:
        """Name, outcome and figure of conditions that a training on so many examples must satisfy to be trusted."""
        return []
