"""CSV that a spreadsheet opens without harm: no text in it is taken for a formula."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a listing has no need of it, and shall not wait for its import
    import pandas

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # OWASP, "CSV Injection"; the quote, so that it can be taken off


def harmless(value: Any) -> Any:
    """A value as a cell of a CSV file: a text that begins like a formula has a quote before it, a number has none."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def as_it_was(cell: Any) -> Any:
    """The value that `harmless` made a cell of."""
    return cell[1:] if isinstance(cell, str) and cell.startswith(tuple(f"'{first}" for first in FORMULA)) else cell


def as_csv(table: "pandas.DataFrame") -> str:
    """`table` as the text of a CSV file."""
    return table.rename(columns=harmless).map(harmless).to_csv(index=False)


def read_csv(path: Path) -> "pandas.DataFrame":
    """The table in a file that `as_csv` made the text of."""
    import pandas

    return pandas.read_csv(path).rename(columns=as_it_was).map(as_it_was)


def read_rows(lines: Iterable[str]) -> list[dict[str, str]]:
    """The rows of such a file without pandas: every value a text."""
    return [{as_it_was(name): as_it_was(cell) for name, cell in row.items()} for row in csv.DictReader(lines)]
