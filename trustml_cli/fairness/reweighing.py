"""Reweighing: rows count as much as they would if label and group were independent.

Kamiran and Calders 2012, "Data preprocessing techniques for classification without discrimination", Knowledge and
Information Systems 33.
"""

import torch
from torch import Tensor


def reweighing(labels: Tensor, group: Tensor) -> Tensor:
    """Every row's weight, float64 [N]: P(label)·P(group) / P(label, group), shares of the rows as they are.

    Labels and groups are int64 [N], by any numbers. The weighted rows have every group's share of labels alike, and
    the mean weight is 1 where every group has rows of every label.
    """
    weights = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels):
        for number in torch.unique(group):
            both = (labels == label) & (group == number)
            expected = (labels == label).double().mean() * (group == number).double().mean()
            weights[both] = expected / both.double().mean()
    return weights


def resample(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of N rows, of which each comes as often as its weight [N] says, on average; int64 [N], shuffled.

    Systematic sampling: a row of weight w comes ⌊w⌋ or ⌈w⌉ times, rows of one weight in a random order. It takes the
    place of weights in the loss, so that any trainer can be used.
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
