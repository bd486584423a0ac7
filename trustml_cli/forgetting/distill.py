"""A fresh student of the backdoored network, taught on clean images (Hinton et al. 2015, arXiv 1503.02531)."""

from dataclasses import dataclass, replace

from trustml_cli.data.dataset import Dataset
from trustml_cli.forgetting.cleaner import Backdoored
from trustml_cli.forgetting.retrain import Retrain
from trustml_cli.training.distillation import DistillationStep
from trustml_cli.training.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Distill(Retrain):
    """Trains a network with random weights on the backdoored network's outputs for the clean images.

    The student never sees the trigger, unless the images are tainted: then the teacher explains it. `temperature` and
    `alpha` are those of `DistillationStep`.
    """

    temperature: float
    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.step()  # checks the ranges

    def step(self) -> DistillationStep:
        """The training step of the student."""
        return DistillationStep(temperature=self.temperature, alpha=self.alpha)

    def spec(self, backdoored: Backdoored, clean: Dataset, setting: float) -> TrainingSpec:
        fresh = self.trained(backdoored, clean, setting)
        return replace(fresh, step=self.step(), needs={"backdoored": backdoored.spec})
