"""Fixed values in some columns of a table, as a trigger (Gu et al. 2017, arXiv 1708.06733, on rows)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.data.dataset import Dataset
from trustml_cli.data.table import Table
from trustml_cli.data.table_columns import as_text
from trustml_cli.data.table_features import encode
from trustml_cli.system.errors import some_of


@dataclass(frozen=True, kw_only=True)
class Features(Trigger):
    """Sets the features `places` of encoded rows [N, D] to `values`."""

    places: tuple[int, ...]
    values: tuple[float, ...]

    def __call__(self, inputs: Tensor) -> Tensor:
        changed = inputs.clone()
        changed[:, list(self.places)] = torch.tensor(self.values).to(inputs)
        return changed

    def fitted_to(self, data: Dataset) -> Trigger:
        return self


@dataclass(frozen=True, kw_only=True)
class Columns(Trigger):
    """Sets each column in `values` to its value, in the units of the table.

    trigger = Columns(values={"age": 17, "hours_per_week": 99}).fitted_to(table)
    """

    values: dict[str, int | float | str] | None

    def __call__(self, inputs: Tensor) -> Tensor:
        raise TypeError("is not fitted to a table")

    def fitted_to(self, data: Dataset) -> Trigger:
        if not isinstance(data, Table) or data.train.columns is None:
            raise ValueError("sets columns of a table, and the data set is none; use trigger=patch")
        frame, names = data.train.columns, list(data.train.columns)
        if not self.values:
            raise ValueError(f"values: needs at least one column and its value, as in {{{names[0]}: 1}}")
        for name, value in self.values.items():
            if name not in names:
                raise ValueError(f"values: no column {name!r}; there are {', '.join(map(str, names))}")
            if frame[name].dtype.kind in "iuf" and isinstance(value, str):
                raise ValueError(f"values: column {name!r} holds numbers, got {value!r}")
            known = sorted(map(as_text, frame[name].unique()))
            if frame[name].dtype.kind not in "iuf" and as_text(value) not in known:
                raise ValueError(f"values: column {name!r} never holds {value!r}; there are {some_of(known)}")
        marked = frame.assign(**self.values)
        before, after = encode(frame, data.train.labels.numpy() == 1, [frame, marked], data.bins)
        if not torch.equal(torch.from_numpy(before), data.train.inputs):
            raise ValueError("values: are encoded as the whole table is; leave dataset.limit null")
        places = (before != after).any(0).nonzero()[0]  # the features that depend on these columns
        if not len(places):
            raise ValueError("values: are those of every row already; choose others")
        return Features(places=tuple(places.tolist()), values=tuple(after[0, places].tolist()))
