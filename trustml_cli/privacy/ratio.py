"""Membership by the ratio of the victim's probability to that of reference networks.

Zarifzadeh, Liu and Shokri 2024 (RMIA), arXiv 2312.03262.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trustml_cli.privacy.inference import Inference, Observations, log_probability, mean_where


@dataclass(frozen=True, kw_only=True)
class Ratio(Inference):
    """log p_victim(y | x) − log p(y | x), where p is the mean over references with and without the example.

    Both kinds have equal weight, however many there are; of an example with references of one kind only, theirs is
    taken. The paper compares the ratio with that of further examples z; for one victim this keeps the order of the
    scores, and hence the ROC curve. The mean is taken over the views.
    """

    fewest_references: ClassVar = 1

    def score(self, seen: Observations) -> Tensor:
        known = log_probability(seen.references, seen.labels).exp()
        with_it, without = mean_where(known, seen.inside), mean_where(known, ~seen.inside)
        with_it, without = with_it.where(with_it.isfinite(), without), without.where(without.isfinite(), with_it)
        expected = ((with_it + without) / 2).clamp(min=1e-300)
        return (log_probability(seen.victim, seen.labels) - expected.log()).mean(0)
