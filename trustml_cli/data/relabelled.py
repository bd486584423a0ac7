"""Splits with changed labels, and data sets restricted to some classes."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from trustml_cli.data.dataset import Dataset, Split


class Relabelled(Split):
    """The examples of `split` with other `labels`, int64 [N]."""

    def __init__(self, split: Split, labels: Tensor) -> None:
        assert len(labels) == len(split), (len(labels), len(split))
        self.split, self.labels, self.shape = split, labels, split.shape

    def subset(self, indices: Tensor) -> Self:
        return type(self)(self.split.subset(indices), self.labels[indices])

    def stream(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = torch.split(order.to(self.labels.device), batch_size)
        for part, (raw, _) in zip(parts, self.split.stream(order, batch_size), strict=True):
            yield raw, self.labels[part]

    def on(self, device: torch.device) -> Split:
        moved = self.split.on(device)
        return type(self)(moved, self.labels.to(moved.labels.device))


def only_classes(data: Dataset, classes: Sequence[int]) -> Dataset:
    """The data set restricted to `classes`, which are renumbered from 0 in the order given."""
    numbers = torch.full((len(data.classes),), -1)
    numbers[list(classes)] = torch.arange(len(classes))

    def cut(split: Split) -> Split:
        labels = numbers[split.labels]
        kept = (labels >= 0).nonzero()[:, 0]
        return Relabelled(split.subset(kept), labels[kept])

    return data.derive(
        f"classes={','.join(map(str, classes))}",
        train=cut(data.train),
        test=cut(data.test),
        classes=tuple(data.classes[number] for number in classes),
    )
