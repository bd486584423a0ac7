"""ASH: the energy after small penultimate activations are removed and the others scaled (variant ASH-S).

Djurisic, Bozanic, Ashok and Liu 2022, arXiv 2209.09858.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.models.features import ModelOutputs, logits_from
from trustml_cli.ood.detector import Detector, FittedState
from trustml_cli.ood.energy import energy_score
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class ActivationShaping(Detector):
    """The share `pruned` of each image's features, the smallest, is set to zero; needs no training images."""

    linear_head: ClassVar = True

    pruned: float

    def __post_init__(self) -> None:
        require(self, "pruned", at_least=0, below=1)

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return energy_score(logits_from(outputs.head, shaped(outputs.features, self.pruned)), 1.0)


def shaped(features: Tensor, pruned: float) -> Tensor:
    """The features [N, D] with the smallest set to zero, times exp(sum before / sum after); for features ≥ 0.

    Where the sum after is not positive the factor is 1.
    """
    kept = max(1, features.shape[1] - round(pruned * features.shape[1]))
    largest = features.topk(kept, dim=1)
    sparse = torch.zeros_like(features).scatter(1, largest.indices, largest.values)
    before, after = features.sum(1, keepdim=True), sparse.sum(1, keepdim=True)
    return sparse * torch.where(after > 0, (before / after).exp(), 1.0)
