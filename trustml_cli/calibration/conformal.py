"""Split conformal prediction: sets of classes that hold the right one with a chosen probability.

Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2021, A gentle introduction, arXiv 2107.07511. The probability
is over calibration images and an image from the same distribution.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil, inf, sqrt

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Conformal(ABC):
    """Scores how badly each class fits an image. Subclasses declare their config keys as fields.

    A set holds the classes whose score is at most the threshold that `threshold` takes from calibration images.
    """

    @abstractmethod
    def scores(self, probability: Tensor, random: Tensor) -> Tensor:
        """The score of every class, [N, K], from probabilities [N, K] and a uniform random number per image [N]."""

    def threshold(self, probability: Tensor, labels: Tensor, random: Tensor, coverage: float) -> float:
        """The ⌈(n + 1) · coverage⌉-th smallest score of the labels [n]; infinite where there are too few images."""
        scores = self.scores(probability, random).gather(1, labels[:, None])[:, 0].sort().values
        rank = rank_of(len(scores), coverage)
        return float(scores[rank - 1]) if rank <= len(scores) else inf

    def sets(self, probability: Tensor, random: Tensor, threshold: float) -> Tensor:
        """Which classes are in the set of each image, bool [N, K]."""
        return self.scores(probability, random) <= threshold


def rank_of(calibration: int, coverage: float) -> int:
    """⌈(n + 1) · coverage⌉ for n calibration images: of their scores the threshold is the one of this rank, from 1."""
    return ceil((calibration + 1) * coverage - 1e-9)  # in floating point, 100 · 0.55 is slightly above 55


def mass_before(probability: Tensor) -> tuple[Tensor, Tensor]:
    """For each class, the probability of all more probable ones, and its rank from 1; both [N, K]."""
    ordered, order = probability.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(1) - ordered
    ranks = torch.arange(1, probability.shape[1] + 1).expand_as(order)
    return before.gather(1, order.argsort(1)), ranks.gather(1, order.argsort(1))


def expected_coverage(coverage: float, calibration: int, test: int) -> tuple[float, float]:
    """The range that holds the coverage of `test` images in 95 % of cases, by a normal approximation.

    Given the calibration images, the coverage has a Beta distribution with parameters k and n + 1 − k, for the rank k
    of the threshold among n images; the share among the test images varies around it.
    """
    rank = min(rank_of(calibration, coverage), calibration + 1)
    mean = rank / (calibration + 1)
    spread = mean * (1 - mean)
    deviation = sqrt(spread / (calibration + 2) + spread / test)
    return mean - 1.96 * deviation, mean + 1.96 * deviation
