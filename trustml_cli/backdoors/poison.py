"""Training images with a trigger and the label of another class (Gu et al. 2017, arXiv 1708.06733)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.data.relabelled import Relabelled
from trustml_cli.system.files import digest
from trustml_cli.system.recipe import recipe_of


class Triggered(Split):
    """The examples of `split`, with `trigger` applied to those that are `chosen` (bool [N]); labels are unchanged."""

    def __init__(self, split: Split, trigger: Trigger, chosen: Tensor) -> None:
        assert chosen.dtype == torch.bool
        assert len(chosen) == len(split), (len(chosen), len(split))
        self.split, self.trigger, self.chosen = split, trigger, chosen
        self.labels, self.shape = split.labels, split.shape

    def subset(self, indices: Tensor) -> Self:
        return type(self)(self.split.subset(indices), self.trigger, self.chosen[indices])

    def stream(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = torch.split(order.cpu(), batch_size)  # on the CPU, so that a GPU is not synchronised
        for part, (raw, labels) in zip(parts, self.split.stream(order, batch_size), strict=True):
            rows = self.chosen[part].nonzero()[:, 0].to(raw.device)
            yield raw.index_copy(0, rows, self.trigger(raw[rows])), labels

    def on(self, device: torch.device) -> Split:
        return type(self)(self.split.on(device), self.trigger, self.chosen)


@dataclass(frozen=True, kw_only=True)
class Poison:
    """Applies `trigger` to a share `rate` of the training images of the `source` classes and labels them `target`.

    With target None, each image is labelled with the class after its own of `classes` classes (all-to-all). With
    `clean_label` the poisoned images are images of the target class, which keep their label (Turner, Tsipras and Madry
    2019, arXiv 1912.02771), and the rate is a share of these.

    The rate is in (0, 1], a share of the training images of these classes, not of the whole training set. Poisoned
    images replace their originals and are drawn at random by `seed`; a larger rate includes the images of a smaller
    one.
    """

    trigger: Trigger
    source: tuple[int, ...]
    target: int | None
    classes: int
    clean_label: bool
    rate: float
    seed: int

    def of_source(self, labels: Tensor) -> Tensor:
        """Indices of the examples of the source classes."""
        return torch.isin(labels, torch.tensor(self.source)).nonzero()[:, 0]

    def candidates(self, labels: Tensor) -> Tensor:
        """Indices of the examples that may be poisoned."""
        if self.clean_label and self.target is not None:
            return torch.eq(labels, self.target).nonzero()[:, 0]
        return self.of_source(labels)

    def aims(self, labels: Tensor) -> Tensor:
        """The class that triggered examples of the classes `labels` (int64 [N]) are to be classified as, [N]."""
        return (labels + 1) % self.classes if self.target is None else torch.full_like(labels, self.target)

    def choose(self, labels: Tensor) -> Tensor:
        """Which examples are poisoned, bool [N]: round(rate · examples of the source classes), drawn at random."""
        candidates = self.candidates(labels)
        count = round(self.rate * len(candidates))
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(self.seed))
        chosen = torch.zeros(len(labels), dtype=torch.bool)
        chosen[candidates[order[:count]]] = True
        return chosen

    def apply(self, data: Dataset) -> Dataset:
        """`data` with poisoned training images; the test images are unchanged."""
        chosen = self.choose(data.train.labels)
        labels = self.aims(data.train.labels).where(chosen, data.train.labels)
        poisoned = Relabelled(Triggered(data.train, self.trigger, chosen), labels)
        return data.derive(f"poison={digest(self.facts())}", train=poisoned)

    def trigger_all(self, split: Split) -> Split:
        """`split` with the trigger applied to every example."""
        return Triggered(split, self.trigger, torch.ones(len(split), dtype=torch.bool))

    def facts(self) -> dict[str, Any]:
        """All parameters that determine which images are poisoned, and how."""
        facts: dict[str, Any] = recipe_of(self)
        return facts
