"""Reweighing: row weights that make label and group statistically independent.

Kamiran and Calders 2012, "Data preprocessing techniques for classification without discrimination", Knowledge and
Information Systems 33.
"""

import torch
from torch import Tensor


def reweighing(labels: Tensor, group: Tensor) -> Tensor:
    """The weight of each row, float64 [N]: P(label)·P(group) / P(label, group), estimated from the rows.

    Labels and groups are int64 [N], with any values. In the weighted rows, all groups have the same share of each
    label; the mean weight is 1 if every group has rows of every label.
    """
    weights = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels):
        for number in torch.unique(group):
            both = (labels == label) & (group == number)
            expected = (labels == label).double().mean() * (group == number).double().mean()
            weights[both] = expected / both.double().mean()
    return weights


def resample(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of N rows, drawn with expected multiplicity equal to their weights [N]; int64 [N], shuffled.

    Systematic sampling: a row of weight w appears ⌊w⌋ or ⌈w⌉ times; rows of equal weight are ordered at random.
    Resampling replaces weights in the loss, so that any trainer can be used.
    """
    order = torch.randperm(len(weights), generator=generator)
    order = order[weights[order].argsort(stable=True)]
    ends = weights[order].cumsum(0)
    points = (torch.arange(len(weights)) + torch.rand((), generator=generator, dtype=torch.float64)) / len(weights)
    chosen = order[torch.searchsorted(ends / ends[-1], points).clamp(max=len(weights) - 1)]
    return chosen[torch.randperm(len(weights), generator=generator)]


def crossed(sensitive: Tensor) -> Tensor:
    """One number for each combination of groups, int64 [N], of groups by several attributes, int64 [N, A]."""
    numbers: Tensor = torch.unique(sensitive, dim=0, return_inverse=True)[1]
    return numbers
