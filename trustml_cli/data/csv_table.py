"""A user's own table, in a CSV file."""

from dataclasses import dataclass
from pathlib import Path

from trustml_cli.data.table import Columns, Table, TableSource, as_text, read_frame, tabulate
from trustml_cli.system.errors import InputError, some_of


@dataclass(frozen=True, kw_only=True)
class CsvTable(TableSource):
    """The table in the CSV file `path`, whose first line names the columns.

    `label` is the column to be predicted and `positive` its favourable value; every other value is unfavourable.
    Columns in `sensitive` and in `leave_out` are not features.
    """

    path: Path
    label: str
    positive: str
    sensitive: list[str]
    leave_out: list[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.is_file():
            raise ValueError(f"path: no file {self.path}; give a file of comma-separated values with a header")

    def read(self, cache_dir: Path) -> Table:
        frame = read_frame(self.path)
        for key, names in (("label", [self.label]), ("sensitive", self.sensitive), ("leave_out", self.leave_out)):
            for name in names:
                if name not in frame.columns:
                    known = some_of(frame.columns)
                    raise InputError(f"dataset.{key}: no column {name!r} in {self.path}; there are {known}")
        roles = [self.label, *self.sensitive, *self.leave_out]
        if twice := [name for name in roles if roles.count(name) > 1]:
            raise InputError(f"dataset: column {twice[0]!r} is named twice among label, sensitive and leave_out")
        frame = frame.drop(columns=self.leave_out)
        frame[self.label] = frame[self.label].map(as_text)
        values = sorted(set(frame[self.label]))
        if self.positive not in values:
            raise InputError(
                f"dataset.positive: no value {self.positive!r} in column {self.label!r} of {self.path}; "
                f"there are {some_of(values)}"
            )
        columns = Columns(self.label, self.positive, self.sensitive)
        train, test = self.divide(frame, columns)
        return tabulate(train, test, columns, self.bins, source=str(self.path), key="dataset.sensitive")
