"""The likelihood ratio attack: one example's confidence under networks that were and were not trained on it.

Carlini, Chien, Nasr, Song, Terzis and Tramèr 2022, arXiv 2112.03570.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.privacy.inference import Inference, Observations, logit_confidence, mean_where
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Lira(Inference):
    """The log-likelihood ratio of φ under normal distributions fitted to references with and without the example.

    `online` compares both; otherwise the references without it give the score: by how many standard deviations φ
    exceeds their mean. With fewer than `own_variance_from` references each of the two distributions has one variance
    for all examples, the mean square distance from each example's own mean. The mean is taken over the views.
    """

    fewest_references: ClassVar = 2

    online: bool
    own_variance_from: int

    def __post_init__(self) -> None:
        require(self, "own_variance_from", at_least=2)

    def score(self, seen: Observations) -> Tensor:
        phi, known = logit_confidence(seen.victim, seen.labels), logit_confidence(seen.references, seen.labels)
        mean_in, mean_out = means(known, seen.inside)
        own = len(known) >= self.own_variance_from
        out = log_density(phi, mean_out, variance(known, ~seen.inside, mean_out, own))
        if self.online:
            return (log_density(phi, mean_in, variance(known, seen.inside, mean_in, own)) - out).mean(0)
        return ((phi - mean_out) / variance(known, ~seen.inside, mean_out, own).sqrt()).mean(0)


def means(known: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Means of φ [R, V, N] over the references with and without each example, [V, N] each.

    Where an example has no reference of one kind, its mean is that of the other kind, shifted by the mean difference
    over the other examples.
    """
    with_it, without = mean_where(known, inside), mean_where(known, ~inside)
    gap = (with_it - without).nanmean(1, keepdim=True).nan_to_num()
    return with_it.where(with_it.isfinite(), without + gap), without.where(without.isfinite(), with_it - gap)


def variance(known: Tensor, chosen: Tensor, mean: Tensor, own: bool) -> Tensor:
    """The variance of φ [R, V, N] around each example's `mean` [V, N] over the `chosen` [R, N] references.

    [V, N] if `own`, one for each example; otherwise [V, 1], one for all. Unbiased, and at least 1e-6.
    """
    weights = chosen[:, None].to(known)
    squares, free = (weights * (known - mean).square()).sum(0), (weights.sum(0) - 1).clamp(min=0)
    if not own:
        squares, free = squares.sum(1, keepdim=True), free.sum(1, keepdim=True)
    return (squares / free.clamp(min=1)).clamp(min=1e-6)


def log_density(values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """The log-density of the normal distribution, up to a constant."""
    return -0.5 * ((values - mean).square() / variance + torch.log(variance))
