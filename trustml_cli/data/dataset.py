"""Data sets and their splits, and the base class of data set readers."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from trustml_cli.system.errors import InputError, some_of
from trustml_cli.system.files import digest
from trustml_cli.system.printable import printable
from trustml_cli.system.ranges import require
from trustml_cli.system.recipe import code_of

log = logging.getLogger(__name__)

LONGEST_NAME = 500  # characters of the name of a class
MOST_CLASSES = 10_000  # a confusion matrix of more takes gigabytes


class Split(ABC):
    """One split: examples and their labels. The examples may be in memory or be decoded on demand."""

    labels: Tensor
    """Class numbers, int64, shape [N]."""
    shape: tuple[int, ...]
    """Shape of one example, [C, H, W] for images."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Tensor) -> Self:
        """The examples at `indices` (int64, shape [M]), in that order."""

    @abstractmethod
    def stream(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield raw examples (uint8 for images) and labels in batches, in the given `order` (int64, [M])."""

    def on(self, device: torch.device) -> "Split":
        """The same split, moved to `device` if that makes batches faster. By default it is not moved."""
        return self

    def divide(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Two random parts; the second holds `fraction` of the examples (at least one)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        held_out = max(1, round(fraction * len(self)))
        return self.subset(order[held_out:]), self.subset(order[:held_out])


class InMemory(Split):
    """Examples in one tensor, which may be memory-mapped; a batch is obtained by indexing."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        assert len(inputs) == len(labels), (inputs.shape, labels.shape)
        self.inputs, self.labels = inputs, labels.long()
        self.shape = tuple(inputs.shape[1:])

    def subset(self, indices: Tensor) -> Self:
        return type(self)(self.inputs[indices], self.labels[indices])

    def stream(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.split(order.to(self.inputs.device), batch_size):
            yield self.inputs[indices], self.labels[indices]

    def on(self, device: torch.device) -> "Split":
        """The split, moved to a GPU if it takes less than half of its free memory."""
        if device.type == "cuda" and self.inputs.nbytes < torch.cuda.mem_get_info(device)[0] // 2:
            return type(self)(self.inputs.to(device), self.labels.to(device))
        return self


def check_class_count(classes: int, source: str) -> None:
    """Raise `InputError` for more than `MOST_CLASSES` classes."""
    if classes > MOST_CLASSES:
        raise InputError(f"dataset: {source} has {classes:,} classes; {MOST_CLASSES:,} at most are taken")


def check_name(length: int, source: str) -> None:
    """Raise `InputError` for a class name of more than `LONGEST_NAME` characters."""
    if length > LONGEST_NAME:
        raise InputError(
            f"dataset: {source} has a class name of {length:,} characters; {LONGEST_NAME} at most are taken"
        )


def random_subset(split: Split, count: int, seed: int) -> Split:
    """`count` examples drawn at random, or all if there are fewer."""
    return split.subset(random_indices(split, count, seed))


def random_indices(split: Split, count: int, seed: int) -> Tensor:
    """The indices of `random_subset` in the split, in ascending order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return order[:count].sort().values


@dataclass(frozen=True)
class Dataset:
    """A data set that has been read.

    `classes` are the names of the classes, in the order of their numbers. `fingerprint` changes with the content and is
    part of the store key of trained models; changed data sets must be made by `derive`. `source` describes where the
    examples were read from, and `notes` what matters when figures measured on them are compared with others.
    `columns_read` says how each column of a file was read, a row each.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    source: str
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    columns_read: tuple[Mapping[str, Any], ...] = field(default=(), kw_only=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train.shape

    def class_number(self, name: str | int) -> int:
        """The number of the class called `name`; an int that is no class name is taken as the class number.

        Raises ValueError where there is no such class.
        """
        if str(name) in self.classes:
            return self.classes.index(str(name))
        if isinstance(name, int) and 0 <= name < len(self.classes):
            return name
        raise ValueError(f"no class {name!r}; there are {some_of(self.classes)} (0 to {len(self.classes) - 1})")

    def limited(self, limit: int) -> "Dataset":
        """The same data set with at most `limit` examples in each split, drawn at random with a fixed seed."""

        def cut(split: Split) -> Split:
            order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
            return split if len(split) <= limit else split.subset(order[:limit].sort().values)

        return self.derive(f"limit={limit}", train=cut(self.train), test=cut(self.test))

    def derive(
        self,
        note: str,
        *,
        train: Split | None = None,
        test: Split | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> Self:
        """The data set with another training split, test split or classes; always use this to change a data set.

        `note` describes the change with all its parameters. It becomes part of the fingerprint, so that different
        changes must have different notes.
        """
        given = {"train": train, "test": test, "classes": classes}
        parts: dict[str, Any] = {name: part for name, part in given.items() if part is not None}
        return replace(self, fingerprint=f"{self.fingerprint}, {note}", **parts)

    def hold_out(self, count: int, seed: int) -> tuple[Self, Self]:
        """Set `count` random training images aside, a fifth of them at most.

        Returns the data set without them, and the data set with them alone as its training images. Raises `InputError`
        where there are fewer than five.
        """
        count = min(count, len(self.train) // 5)
        if not count:
            raise InputError(f"dataset: needs 5 training images or more to hold some out, got {len(self.train)}")
        rest, aside = self.train.divide(count / len(self.train), seed)
        note = f"of {count} held out by {seed}"
        return self.derive(f"the rest {note}", train=rest), self.derive(note, train=aside)


@dataclass(frozen=True, kw_only=True)
class DatasetSource(ABC):
    """Reads a data set. Subclasses declare their keys as fields and implement `read`.

    `limit` is the maximum number of examples kept in each split (null: all).
    """

    limit: int | None

    def __post_init__(self) -> None:
        require(self, "limit", at_least=1)

    @abstractmethod
    def read(self, cache_dir: Path) -> Dataset:
        """Read the whole data set; decoded examples are cached below `cache_dir`.

        Raises `InputError` where files are missing or damaged.
        """

    def like(self, shape: tuple[int, ...]) -> "DatasetSource":
        """The source for images of `shape` [C, H, W], where it can be read in any shape; by default itself."""
        return self

    def load(self, cache_dir: Path) -> Dataset:
        """Read and check the data set and reduce it to `limit`; decoded examples are cached below `cache_dir`.

        Raises `InputError` where it is missing, damaged or inconsistent.
        """
        data = self.read(cache_dir)
        for note in data.notes:
            log.warning("dataset: %s", note)
        if code := code_of(cls.__module__ for cls in type(self).__mro__):  # a user's own reader
            data = data.derive(f"read by {digest(code)}")
        check_class_count(len(data.classes), data.source)
        check_name(max(map(len, data.classes)), data.source)
        data = replace(data, classes=tuple(map(printable, data.classes)))  # names of folders may contain any characters
        if len(data.classes) < 2:
            raise InputError(f"dataset: {data.source} has one class only ({data.classes[0]}); two or more are needed")
        if data.train.shape != data.test.shape:
            raise InputError(f"dataset: {data.source}: train holds {data.train.shape}, test {data.test.shape}")
        for split in (data.train, data.test):
            if not len(split) or split.labels.min() < 0 or split.labels.max() >= len(data.classes):
                raise InputError(f"dataset: {data.source}: labels must be 0 to {len(data.classes) - 1}, and not none")
        return data if self.limit is None else data.limited(self.limit)
