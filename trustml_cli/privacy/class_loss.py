"""Membership by the victim's loss against a threshold for each class.

Song and Mittal 2021, arXiv 2003.10595.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.privacy.inference import Inference, Observations, log_probability


@dataclass(frozen=True, kw_only=True)
class ClassLoss(Inference):
    """The negative loss minus the threshold of the class, which separates members of reference networks best."""

    fewest_references: ClassVar = 1

    def score(self, seen: Observations) -> Tensor:
        known = log_probability(seen.references, seen.labels).mean(1)  # [R, N]
        classes = seen.victim.shape[-1]
        thresholds = torch.stack([
            best_threshold(known[:, seen.labels == number], seen.inside[:, seen.labels == number])
            for number in range(classes)
        ])  # fmt: skip
        return log_probability(seen.victim, seen.labels).mean(0) - thresholds[seen.labels]


def best_threshold(values: Tensor, inside: Tensor) -> Tensor:
    """The threshold on `values` with the highest TPR − FPR for `inside`, both of any shape; 0 without both kinds."""
    order = values.flatten().argsort(descending=True)
    ranked, member = values.flatten()[order], inside.flatten()[order]
    if not member.any() or member.all():
        return values.new_zeros(())
    gap = member.cumsum(0) / member.sum() - (~member).cumsum(0) / (~member).sum()
    last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])  # ties fall on one side together
    return ranked[gap.where(last, -torch.inf).argmax()]
