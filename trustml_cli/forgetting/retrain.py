"""The control: a fresh network, trained on the clean images and their labels alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from trustml_cli.data.dataset import Dataset
from trustml_cli.forgetting.cleaner import Backdoored, Cleaner, check_factors
from trustml_cli.training.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Retrain(Cleaner):
    """Trains a network with random weights on the clean images; it takes nothing from the backdoored network.

    The learning rate is chosen among `lr_factors` times that of the trainer.
    """

    lr_factors: list[float]

    def __post_init__(self) -> None:
        check_factors("lr_factors", self.lr_factors)
        super().__post_init__()

    @property
    def settings(self) -> Sequence[float]:
        return self.lr_factors

    def spec(self, backdoored: Backdoored, clean: Dataset, setting: float) -> TrainingSpec:
        return self.trained(backdoored, clean, setting)
