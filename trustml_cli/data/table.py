"""Tabular data sets: their rows, their splits, and the groups of sensitive attributes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
import pandas
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.data.table_columns import as_text
from trustml_cli.data.table_features import encode_named
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.files import digest
from trustml_cli.system.ranges import require

MOST_GROUPS = 20  # maximum number of groups in a sensitive column


@dataclass(frozen=True)
class Attribute:
    """A sensitive attribute and the names of its groups, in the order of their numbers."""

    name: str
    groups: tuple[str, ...]


class Rows(InMemory):
    """Rows of a table, float32 [N, D]; `sensitive` is the group of each row in each attribute, int64 [N, A].

    `columns` are the features before encoding, if known.
    """

    def __init__(
        self, inputs: Tensor, labels: Tensor, sensitive: Tensor, columns: pandas.DataFrame | None = None
    ) -> None:
        super().__init__(inputs, labels)
        assert len(sensitive) == len(labels), (sensitive.shape, labels.shape)
        self.sensitive = sensitive
        self.columns = columns

    @property
    def strata(self) -> Tensor:
        """The number of each row's combination of groups and label, int64 [N]."""
        together = torch.cat([self.sensitive, self.labels[:, None]], 1)
        numbers: Tensor = torch.unique(together, dim=0, return_inverse=True)[1]
        return numbers

    def subset(self, indices: Tensor) -> Self:
        columns = None if self.columns is None else self.columns.iloc[indices.cpu().numpy()]
        return type(self)(self.inputs[indices], self.labels[indices], self.sensitive[indices], columns)

    def on(self, device: torch.device) -> "Rows":
        return type(self)(self.inputs.to(device), self.labels.to(device), self.sensitive.to(device), self.columns)


@dataclass(frozen=True)
class Table(Dataset):
    """A tabular data set with two classes, of which the second is the favourable one.

    `attributes` describe the columns of `sensitive` in both splits. They are not features. `bins` is the maximum number
    of binary columns added for each numeric column; `feature_columns` names the column that each feature is made of,
    empty if unknown.
    """

    train: Rows
    test: Rows
    attributes: tuple[Attribute, ...]
    bins: int = 0
    feature_columns: tuple[str, ...] = ()

    def split_validation(self, fraction: float, seed: int) -> tuple["Table", Rows]:
        """The table without a share `fraction` of each stratum of its training rows, and the rows held out.

        The encoding of the columns is fitted anew to the remaining rows, so that held-out rows do not influence it.
        """
        kept, aside = divide_strata(self.train.strata, fraction, seed)
        return self._without(aside, kept, f"less {fraction} of each stratum, seed={seed}")

    def cross_validation(self, folds: int, seed: int) -> Iterator[tuple["Table", Rows]]:
        """For each of `folds` disjoint parts of the training rows, what `split_validation` returns for it."""
        fold = fold_numbers(self.train.strata, folds, seed)
        for number in range(folds):
            kept, aside = ((fold != number).nonzero()[:, 0], (fold == number).nonzero()[:, 0])
            yield self._without(aside, kept, f"less fold {number} of {folds}, seed={seed}")

    def _without(self, aside: Tensor, kept: Tensor, note: str) -> tuple["Table", Rows]:
        """The table with the training rows `kept`, encoded anew, and the rows `aside`."""
        train, validation = self.train.subset(kept), self.train.subset(aside)
        rows, names = [train, validation, self.test], self.feature_columns
        if len(train) and train.columns is not None:
            frames = [part.columns for part in rows if part.columns is not None]
            features, names = encode_named(frames[0], train.labels.numpy() == 1, frames, self.bins)
            rows = [
                Rows(torch.from_numpy(encoded), part.labels, part.sensitive, part.columns)
                for encoded, part in zip(features, rows, strict=True)
            ]
        return replace(self.derive(note, train=rows[0], test=rows[2]), feature_columns=names), rows[1]


def divide_strata(strata: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two random parts of N rows; the second has a share `fraction` of each stratum, up to rounding.

    `strata` is int64 [N]. The second part has at least one row. It is a systematic sample: rows are sorted by stratum,
    at random within each, and every 1/fraction-th is taken.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(strata), generator=random)
    order = order[strata[order].argsort(stable=True)]
    ends = torch.arange(len(strata) + 1) * fraction + torch.rand((), generator=random, dtype=torch.float64)
    taken = ends.floor().diff() > 0
    if not taken.any():
        taken[int(torch.randint(len(strata), (), generator=random))] = True
    return order[~taken].sort().values, order[taken].sort().values


def fold_numbers(strata: Tensor, folds: int, seed: int) -> Tensor:
    """A random fold for each of N rows, int64 [N]; each stratum, [N], is divided evenly, up to one row."""
    order = torch.randperm(len(strata), generator=torch.Generator().manual_seed(seed))
    order = order[strata[order].argsort(stable=True)]
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order)) % folds
    return numbers


@dataclass(frozen=True, kw_only=True)
class TableSource(DatasetSource):
    """Reads a table. Subclasses declare further keys as fields and implement `read`.

    For each numeric column up to `bins` binary columns are added, at the thresholds of a decision tree fitted to that
    column alone; 0 adds none. `test_fraction` of each class is held out for testing; `split_seed` determines which
    rows.
    """

    bins: int
    test_fraction: float
    split_seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "bins", at_least=0)
        require(self, "test_fraction", at_least=0.01, at_most=0.9)
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"split_seed: must be at least 0 and below 2**32, got {self.split_seed}")

    def divide(self, frame: pandas.DataFrame, columns: "Columns") -> tuple[pandas.DataFrame, pandas.DataFrame]:
        """Training and test rows, stratified by the label; raises `InputError` where a class has fewer than two."""
        from sklearn.model_selection import train_test_split

        favourable = columns.favourable(frame)
        fewest = min(favourable.sum(), (~favourable).sum())
        if fewest < 2:
            name = f"{columns.label}={columns.positive}"
            raise InputError(f"dataset: {name} splits the table into a class of {fewest} rows")
        with prefix_errors("dataset"):
            train, test = train_test_split(
                frame, test_size=self.test_fraction, stratify=favourable, random_state=self.split_seed
            )
        return train, test


@dataclass(frozen=True)
class Columns:
    """The roles of a table's columns: the label with its favourable value, and the sensitive ones."""

    label: str
    positive: str
    sensitive: Sequence[str]

    def favourable(self, frame: pandas.DataFrame) -> NDArray[np.bool_]:
        """Whether each row has the favourable label, [N]."""
        return (frame[self.label] == self.positive).to_numpy(dtype=np.bool_)


def tabulate(
    train: pandas.DataFrame, test: pandas.DataFrame, columns: Columns, bins: int, source: str, key: str
) -> Table:
    """Both splits as a `Table`; the encoding of the columns is fitted to the training rows.

    `key` is the config key of the sensitive columns, with which errors about them begin.
    """
    attributes = [attribute(train, test, name, key) for name in columns.sensitive]
    known = [*columns.sensitive, columns.label]
    if not len(train.columns.difference(known)):
        raise InputError(f"dataset: {source} has no columns beside the label and the sensitive ones")
    raw = [frame.drop(columns=known) for frame in (train, test)]
    features, feature_columns = encode_named(raw[0], columns.favourable(train), raw, bins)
    train_rows, test_rows = (
        Rows(
            torch.from_numpy(encoded),
            torch.tensor(columns.favourable(frame)),
            torch.from_numpy(group_numbers(frame, attributes)),
            own,
        )
        for frame, encoded, own in zip((train, test), features, raw, strict=True)
    )
    others = set(train[columns.label]) - {columns.positive}
    return Table(
        train=train_rows,
        test=test_rows,
        classes=(others.pop() if len(others) == 1 else f"not {columns.positive}", columns.positive),
        fingerprint=digest([content_hash(train), content_hash(test), asdict(columns), bins]),
        source=source,
        attributes=tuple(attributes),
        bins=bins,
        feature_columns=feature_columns,
    )


def attribute(train: pandas.DataFrame, test: pandas.DataFrame, name: str, key: str) -> Attribute:
    """The sensitive column `name`; raises `InputError` unless it has 2 to `MOST_GROUPS` values."""
    groups = sorted({as_text(value) for frame in (train, test) for value in frame[name]})
    if len(groups) < 2:
        raise InputError(f"{key}: column {name!r} has the one value {groups[0]!r}; two groups or more are needed")
    if len(groups) > MOST_GROUPS:
        raise InputError(f"{key}: column {name!r} has {len(groups)} values; make groups of them, {MOST_GROUPS} at most")
    return Attribute(name, tuple(groups))


def group_numbers(frame: pandas.DataFrame, attributes: Sequence[Attribute]) -> NDArray[np.int64]:
    """The group number of each row in each attribute, int64 [N, A]."""
    numbers = [[attribute.groups.index(as_text(value)) for value in frame[attribute.name]] for attribute in attributes]
    return np.array(numbers, dtype=np.int64).reshape(len(attributes), len(frame)).T.copy()


def content_hash(frame: pandas.DataFrame) -> str:
    """A hash of the column names and the rows."""
    return digest([list(frame.columns), pandas.util.hash_pandas_object(frame, index=False).tolist()])
