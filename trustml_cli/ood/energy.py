"""The free energy of the logits.

Liu, Wang, Owens and Li 2020, arXiv 2010.03759.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, exact
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Energy(Detector):
    """The free energy at `temperature` > 0; the paper uses 1."""

    temperature: float

    def __post_init__(self) -> None:
        require(self, "temperature", above=0)

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return energy_score(outputs.logits, self.temperature)


def energy_score(logits: Tensor, temperature: float) -> Tensor:
    """−T·log Σₖ exp(zₖ/T) of logits z [N, K]: float64 [N]."""
    return -temperature * (exact(logits) / temperature).logsumexp(1)
