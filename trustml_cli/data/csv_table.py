"""A user's own table, in a file of text or parquet."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pandas

from trustml_cli.data.table import Columns, Table, TableSource, tabulate
from trustml_cli.data.table_columns import Reading, as_numbers, as_text, interpret
from trustml_cli.data.table_file import RawTable, TextFormat, read_table
from trustml_cli.data.table_report import FEW, Report, counts_rows, report, written
from trustml_cli.system.errors import InputError, short, some_of

log = logging.getLogger(__name__)

SEPARATOR_NAMES = {r"\t": "\t", "tab": "\t"}  # which are hard to type on a command line


@dataclass(frozen=True, kw_only=True)
class CsvTable(TableSource):
    """The table in the file `path`: text whose first line names the columns, or parquet; it may be compressed.

    `label` is the column to be predicted and `positive` its favourable value; every other value is unfavourable.
    Columns in `sensitive` and in `drop` are not features. `separator` and `encoding` are found out if null. `decimal`
    is the mark before decimals. `na_values` stand for a missing value. Columns in `numeric` must be numbers, and may
    have marks between thousands (1,234).
    """

    path: Path
    label: str
    positive: str
    sensitive: list[str]
    drop: list[str]
    numeric: list[str]
    na_values: list[str]
    separator: str | None
    decimal: str
    encoding: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.is_file():
            raise ValueError(f"path: no file {self.path}; give a table with a header, as CSV, TSV or parquet")
        separator = SEPARATOR_NAMES.get(self.separator or ",", self.separator or ",")
        if len(separator) != 1 or separator in '"\r\n':
            raise ValueError(f"separator: must be one character, such as ';' or tab (or null), got {self.separator!r}")
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal: must be '.' or ',', got {self.decimal!r}")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError:
            raise ValueError(f"encoding: there is no {self.encoding!r}; examples are utf-8, cp1252, utf-16") from None

    def read(self, cache_dir: Path) -> Table:
        separator = None if self.separator is None else SEPARATOR_NAMES.get(self.separator, self.separator)
        raw = read_table(self.path, TextFormat(separator=separator, encoding=self.encoding))
        self.check_names(raw)
        frame = interpret(raw.frame, Reading(self.decimal, self.na_values, self.numeric))
        notes = [*raw.notes]
        unlabelled = frame[self.label].isna()
        if unlabelled.any():
            notes.append(f"{unlabelled.sum():,} rows without a label in column {short(self.label)} are left out")
            frame = frame[~unlabelled]
        frame = frame.assign(**{self.label: frame[self.label].map(as_text)})
        columns = Columns(self.label, self.favourable_value(frame), self.sensitive)
        known = [self.label, *self.sensitive, *self.drop]
        out = nothing_to_learn(frame.drop(columns=known), raw.unnamed)
        empty = [name for name in raw.unnamed if out.get(name) == "no value"]  # what commas after the last name make
        notes += [f"column {short(name)} is left out: {why}" for name, why in out.items() if name not in empty]
        out |= dict.fromkeys(self.drop, "dataset.drop")
        notes += names_made_up(raw, out)
        found = report(frame, self.label, self.sensitive, columns.favourable(frame), out, self.decimal)
        notes += [*found.remarks, *self.doubts_about_roles(frame, columns)]
        tell(found)
        train, test = self.divide(frame.drop(columns=list(out)), columns)
        table = tabulate(train, test, columns, self.bins, source=str(self.path), key="dataset.sensitive")
        return replace(table, notes=tuple(notes), columns_read=tuple(found.rows))

    def check_names(self, raw: RawTable) -> None:
        """Raise `InputError` for a column that is absent, has two roles, or whose name is another column's too."""
        roles = {"label": [self.label], "sensitive": self.sensitive, "drop": self.drop}
        for key, names in {**roles, "numeric": self.numeric}.items():
            for name in names:
                if name not in raw.frame:
                    known = some_of(raw.frame)
                    raise InputError(f"dataset.{key}: no column {name!r} in {self.path}; there are {known}")
        every = [name for names in roles.values() for name in names]
        if twice := [name for name in every if every.count(name) > 1]:
            raise InputError(f"dataset: column {twice[0]!r} is named twice among label, sensitive and drop")
        for copy, name in raw.doubled.items():
            if name in (self.label, *self.sensitive) and not {copy, name} & {*self.drop}:
                raise InputError(
                    f"dataset: {self.path} has two columns called {name!r}; rename one, or leave the second out with "
                    f"dataset.drop={written([copy])}"
                )

    def favourable_value(self, frame: pandas.DataFrame) -> str:
        """`positive` as it stands in the label column: 1 is also 1.0, and true is also TRUE."""
        values = sorted(set(frame[self.label]))
        if not values:
            raise InputError(f"dataset.label: column {self.label!r} of {self.path} has no values")
        number = as_numbers([self.positive], ".")
        equal = as_numbers(values, ".") == number
        alike = [value for value, same in zip(values, equal, strict=True) if same]
        alike = alike or [value for value in values if value.casefold() == self.positive.casefold()]
        if self.positive in values or len(alike) == 1:
            return self.positive if self.positive in values else alike[0]
        raise InputError(
            f"dataset.positive: no value {self.positive!r} in column {self.label!r} of {self.path}; "
            f"there are {some_of(values)}"
        )

    def doubts_about_roles(self, frame: pandas.DataFrame, columns: Columns) -> list[str]:
        """What may be amiss with the label and the sensitive columns."""
        others = sorted(set(frame[self.label]) - {columns.positive})
        found = []
        if len(others) > 1:
            found.append(
                f"column {short(self.label)} has {len(others) + 1:,} values; {short(columns.positive)} is favourable, "
                f"and the others count as unfavourable: {some_of(others[:FEW])}"
            )
        for name in self.sensitive:
            if lacking := frame[name].isna().sum():
                found.append(f"{lacking:,} rows have no value in column {short(name)}, and are a group called '?'")
        return found


def names_made_up(raw: RawTable, out: Collection[str]) -> list[str]:
    """Remarks on columns that have no name, or the same one, but for those that are left `out`."""
    doubled = {copy: name for copy, name in raw.doubled.items() if not {copy, name} & {*out}}
    return [
        *(f"columns {short(name)} and {short(copy)} have the same name in the file" for copy, name in doubled.items()),
        *(f"a column without a name in the header is called {short(name)}" for name in raw.unnamed if name not in out),
    ]


def nothing_to_learn(features: pandas.DataFrame, unnamed: Collection[str]) -> dict[str, str]:
    """Columns that are no features, with the reason."""
    out = {str(name): "no value" for name in features if features[name].isna().all()}
    counting = [name for name in unnamed if name in features and counts_rows(features[name])]
    return out | dict.fromkeys(counting, "no name, and numbers of the rows")


def tell(found: Report) -> None:
    """Log how the columns were read, as many as a screen shows."""
    for row in found.rows[:FEW]:
        log.info("dataset: %s: %s, %d values, %s", row["column"], row["read_as"], row["values"], row["content"])
    if len(found.rows) > FEW:
        log.info("dataset: and %d more columns; columns.csv has all", len(found.rows) - FEW)
