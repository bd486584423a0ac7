"""Fine-tuning of the backdoored network on clean images (Liu, Dolan-Gavitt and Garg 2018, arXiv 1805.12185)."""

from dataclasses import dataclass

from trustml_cli.data.dataset import Dataset
from trustml_cli.forgetting.cleaner import Backdoored
from trustml_cli.forgetting.retrain import Retrain
from trustml_cli.training.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class FineTune(Retrain):
    """Trains the backdoored network further; its backdoor is forgotten at learning rates that cost clean accuracy.

    The learning rate is chosen among `lr_factors` times that of the trainer, lowest first.
    """

    def spec(self, backdoored: Backdoored, clean: Dataset, setting: float) -> TrainingSpec:
        return self.tuned(backdoored, clean, setting)
