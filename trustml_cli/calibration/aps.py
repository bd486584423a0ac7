"""Adaptive prediction sets: larger for images that are harder.

Romano, Sesia and Candès 2020, Classification with valid and adaptive coverage, arXiv 2006.02544.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.calibration.conformal import Conformal, mass_before


@dataclass(frozen=True, kw_only=True)
class AdaptiveSets(Conformal):
    """The score of a class is the probability of all more probable ones, and a random part of its own."""

    def scores(self, probability: Tensor, random: Tensor) -> Tensor:
        return mass_before(probability)[0] + random[:, None] * probability
