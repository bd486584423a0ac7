"""Regularised adaptive prediction sets: without the long tail of unlikely classes.

Angelopoulos, Bates, Malik and Jordan 2021, Uncertainty sets for image classifiers using conformal prediction, arXiv
2009.14193.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.calibration.conformal import Conformal, mass_before
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class RegularizedSets(Conformal):
    """Adaptive sets whose score grows by `penalty` for each class beyond the `free` most probable ones."""

    penalty: float
    free: int

    def __post_init__(self) -> None:
        require(self, "penalty", "free", at_least=0)

    def scores(self, probability: Tensor, random: Tensor) -> Tensor:
        before, rank = mass_before(probability)
        return before + random[:, None] * probability + self.penalty * (rank - self.free).clamp(min=0)
