"""The base class of methods that clean a backdoored network with a few clean images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from trustml_cli.data.dataset import Dataset
from trustml_cli.system.ranges import require
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.spec import TrainingSpec


@dataclass(frozen=True)
class Backdoored:
    """A backdoored network, frozen and in eval mode, and its specification."""

    spec: TrainingSpec
    network: nn.Module
    trainer: GradientTrainer


@dataclass(frozen=True, kw_only=True)
class Cleaner(ABC):
    """Specifies the training of a clean network. Subclasses declare their keys as fields and implement `spec`.

    The network is trained by the run's trainer, for `effort` times its epochs: the clean set is much smaller than the
    training set.
    """

    effort: float

    def __post_init__(self) -> None:
        require(self, "effort", above=0)

    @property
    @abstractmethod
    def settings(self) -> Sequence[float]:
        """The values of the setting to choose from, from the one that changes the network least to the most."""

    @abstractmethod
    def spec(self, backdoored: Backdoored, clean: Dataset, setting: float) -> TrainingSpec:
        """The training of the cleaned network on the training images of `clean`."""

    def check(self, network: nn.Module, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise ValueError, with a remedy, if a network for inputs of `shape` cannot be cleaned. By default it can."""

    def trained(self, backdoored: Backdoored, clean: Dataset, lr_factor: float) -> TrainingSpec:
        """A network with random weights, trained on `clean` with `lr_factor` times the trainer's learning rate."""
        trainer = backdoored.trainer
        epochs = max(1, round(self.effort * trainer.epochs))
        return TrainingSpec(
            data=clean,
            model=backdoored.spec.model.fresh(),
            trainer=replace(trainer, epochs=epochs, lr=lr_factor * trainer.lr),
            seed=backdoored.spec.seed_for("cleaner", 1),
        )

    def tuned(self, backdoored: Backdoored, clean: Dataset, lr_factor: float) -> TrainingSpec:
        """The backdoored network, trained further on `clean`."""
        return replace(self.trained(backdoored, clean, lr_factor), init_from=backdoored.spec)


def chosen_setting(accuracy: Mapping[float, float], before: float, tolerance: float) -> float:
    """The last setting whose held-out accuracy is at least `before` − `tolerance`; if none is, the most accurate one.

    `accuracy` maps the settings, in their order, to accuracies on the same held-out clean images on which the
    backdoored network has the accuracy `before`.
    """
    good = [setting for setting, value in accuracy.items() if value >= before - tolerance]
    return good[-1] if good else max(accuracy, key=lambda setting: accuracy[setting])


def check_factors(name: str, values: Sequence[float]) -> None:
    """Raise ValueError unless there is at least one value and all are above 0."""
    if not values or min(values) <= 0:
        raise ValueError(f"{name}: must be numbers above 0, at least one; got {list(values)}")
