"""Sets of all classes above a probability: the smallest sets on average.

Sadinle, Lei and Wasserman 2019, Least ambiguous set-valued classifiers, arXiv 1609.00451.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.calibration.conformal import Conformal


@dataclass(frozen=True, kw_only=True)
class LeastAmbiguous(Conformal):
    """The score of a class is 1 − its probability."""

    def scores(self, probability: Tensor, random: Tensor) -> Tensor:
        return 1 - probability
