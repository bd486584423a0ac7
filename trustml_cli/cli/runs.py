"""`trustml runs`: lists the runs below a directory, one per line."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import inf, isnan
from pathlib import Path
from textwrap import shorten
from typing import Any, TextIO

from trustml_cli.config.instantiate import nearest
from trustml_cli.metrics.columns import written
from trustml_cli.results.aggregate import Run
from trustml_cli.results.csv_files import escape_formula, read_rows
from trustml_cli.results.run_facts import config_in
from trustml_cli.system.errors import InputError
from trustml_cli.system.user_file import MB, read_text, read_yaml

COLUMNS = ("started", "task", "model", "dataset", "seed", "status", "headline", "value", "figure", "seconds", "error",
           "directory")  # fmt: skip
LARGEST_TABLE = 4 * MB  # maximum size in bytes of a metrics.csv whose values are listed
LONGEST_VALUE = 1000  # maximum length in characters of a value that is parsed as other than text
LONGEST_ERROR = 80  # maximum length in characters in the listing; run.json has the full text
SHOWN = ("started", "task", "model", "dataset", "status", "figure", "directory")


@dataclass(frozen=True)
class Listed:
    """A run with the content of its files, read lazily."""

    run: Run

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv; empty if it is absent or cannot be read."""
        folder = self.run.folder
        try:
            return read_rows(io.StringIO(read_text(folder / "metrics.csv", LARGEST_TABLE, inside=folder), newline=""))
        except (OSError, ValueError, csv.Error):
            return []

    @cached_property
    def config(self) -> dict[str, Any]:
        """The values of config.yaml by command-line key."""
        return config_in(self.run.folder)

    @cached_property
    def varied(self) -> list[str]:
        """The conditions that differ between rows of metrics.csv."""
        return [key for key in self.run.facts.conditions if len({row.get(key) for row in self.rows}) > 1]

    @cached_property
    def is_curve(self) -> bool:
        """Whether exactly one condition varies and it is numeric."""
        return len(self.varied) == 1 and all(number(row.get(self.varied[0])) is not None for row in self.rows)

    @cached_property
    def figures(self) -> list[tuple[float, str]]:
        """The headline value of every row with its condition: in order of a curve's condition, otherwise ascending."""
        name = str(self.run.facts.headline)
        values = [(number(row.get(name)), self.label(row)) for row in self.rows]
        known = [(value, label) for value, label in values if value is not None]
        return sorted(known, key=lambda figure: float(figure[1]) if self.is_curve else figure[0])

    def label(self, row: Mapping[str, str]) -> str:
        """The conditions that distinguish a row; numbers are given with their names, except along a curve."""
        values = {key: (str(row.get(key)), number(row.get(key))) for key in self.varied}
        own = {key: text if value is None else f"{value:g}" for key, (text, value) in values.items()}
        words = [value if self.is_curve or number(value) is None else f"{key} {value}" for key, value in own.items()]
        return ", ".join(words)

    @property
    def figure(self) -> str:
        """A short text with the headline values, or the error."""
        if not self.figures:
            return shorten(self.run.facts.error or "", LONGEST_ERROR, placeholder=" …")
        name, (first, begin), (last, end) = str(self.run.facts.headline), self.figures[0], self.figures[-1]
        least, most = written(name, first), written(name, last)
        if len(self.figures) > 1:
            if self.is_curve:
                return f"{name} {least.removesuffix(' %')} to {most} ({self.varied[0]} {begin} to {end})"
            return f"{name} {least} ({begin}) to {most} ({end})"
        row = next(row for row in self.rows if number(row.get(name)) == last)
        low, high = (number(row.get(f"{name}_ci_{side}")) for side in ("low", "high"))
        if low is None or high is None:
            return f"{name} {most}"
        return f"{name} {most} ({written(name, low).removesuffix(' %')} to {written(name, high)})"

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of a line in the listing."""
        ours = {"value": self.figures[-1][0] if self.figures else None, "figure": self.figure,
                "status": self.run.status, "directory": str(self.run.folder)}  # fmt: skip
        return {name: ours[name] if name in ours else self.run.facts.get(name) for name in COLUMNS}

    @cached_property
    def values(self) -> dict[str, Any]:
        """All values that a run can be selected by: its overrides, choices, config, facts and measured values."""
        facts = self.run.facts
        last = self.rows[-1] if self.rows else {}
        return {**last, **self.run.overrides, **facts.choices, **self.config, **facts.known, **self.columns}


def selected(runs: Sequence[Run], words: Sequence[str]) -> list[Listed]:
    """The runs in which every KEY=VALUE of `words` holds. Raises `InputError` for a key that no run has."""
    listed = [Listed(run) for run in runs]
    for word in words:
        key, _, wanted = word.partition("=")
        known_to(listed, key)
        listed = [one for one in listed if holds(one.values.get(key), wanted)]
        if not listed:
            break
    return listed


def ordered(listed: Sequence[Listed], key: str, descending: bool) -> list[Listed]:
    """The runs sorted by a key, numbers before texts; runs without the key come last in either direction."""
    key = "value" if key == "headline" else key
    known_to(listed, key)
    ranked = [(place, one) for one in listed if (place := rank(one.values.get(key))) is not None]
    ranked.sort(key=lambda pair: pair[0], reverse=descending)
    return [one for _, one in ranked] + [one for one in listed if rank(one.values.get(key)) is None]


def known_to(listed: Sequence[Listed], key: str) -> None:
    """Raise `InputError` unless one of the runs has the key."""
    if listed and not any(key in one.values for one in listed):
        known = sorted({name for one in listed for name in one.values})
        close = nearest(key, known)
        raise InputError(
            f"{key}: no run here has such a key; {close if close.startswith('did you mean') else 'see its config.yaml'}"
        )


def holds(value: Any, wanted: str) -> bool:
    """Whether a value equals the wanted one after parsing; a single value matches a list of one."""
    one, other = understood(value), understood(wanted)
    return bool(one == other or str(value) == wanted or one == [other])


def rank(value: Any) -> tuple[float, str] | None:
    """The sort key of a value; None if it is missing."""
    if value in (None, ""):
        return None
    plain = number(value)
    return (inf, str(value)) if plain is None else (plain, "")


def understood(value: Any) -> Any:
    """A value parsed as YAML, with every number as float."""
    if isinstance(value, list | tuple):
        return [understood(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    plain = number(value)
    if plain is not None or not isinstance(value, str) or len(value) > LONGEST_VALUE:
        return value if plain is None else plain
    try:
        read = read_yaml(value)
    except ValueError:
        return value
    return value if isinstance(read, str) else understood(read)


def number(value: Any) -> float | None:
    """A value as a number; None if it is not a number or is nan."""
    try:
        plain = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if isnan(plain) else plain


def when(started: Any) -> str:
    """A UTC time in the local time zone, as text."""
    try:
        return datetime.fromisoformat(str(started)).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return ""


def lines(listed: Sequence[Listed]) -> list[list[str]]:
    """The rows of the listing, header first."""
    head = ["when" if name == "started" else "headline" if name == "figure" else name for name in SHOWN]
    body = [[when(one.columns["started"]), *(str(one.columns[name] or "") for name in SHOWN[1:])] for one in listed]
    return [head, *body]


def export(listed: Sequence[Listed], file: TextIO) -> None:
    """Write the listing as CSV."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: escape_formula(cell) for name, cell in one.columns.items()} for one in listed)


def export_to(path: Path, listed: Sequence[Listed]) -> None:
    """Write the listing to a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        export(listed, file)
