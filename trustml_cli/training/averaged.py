"""The gradient trainer that ends with averaged weights."""

from dataclasses import dataclass

from torch import nn

from trustml_cli.system.ranges import require
from trustml_cli.training.averaging import ExponentialAverage
from trustml_cli.training.gradient import GradientTrainer


@dataclass(frozen=True, kw_only=True)
class AveragedTrainer(GradientTrainer):
    """Trains as usual, and keeps the exponential moving average of the weights with `decay` a step.

    The rows of history.csv before the last epoch are about the weights that are being trained.
    """

    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "decay", at_least=0, below=1)
        if self.patience is not None:
            raise ValueError("patience: must be null for this trainer: it keeps the average over all steps")

    def averaging(self, network: nn.Module, steps: int) -> ExponentialAverage:
        return ExponentialAverage(network, self.decay, steps)
