"""CSV that a spreadsheet and a terminal show without harm: no formulas, no control characters."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustml_cli.system.printable import printable
from trustml_cli.system.user_file import MB, opened

if TYPE_CHECKING:  # a listing has no need of it, and shall not wait for its import
    import pandas

LARGEST = 64 * MB  # bytes of a table that is read back
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # OWASP, "CSV Injection"; the quote, so that it can be taken off


def escape_formula(value: Any) -> Any:
    """A value as a cell of a CSV file: a text that begins like a formula has a quote before it, a number has none.

    Control characters in a text become their escape sequences, and stay so when it is read back.
    """
    if not isinstance(value, str):
        return value
    value = printable(value)
    if not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def unescape_formula(cell: Any) -> Any:
    """The value that `escape_formula` made a cell of."""
    return cell[1:] if isinstance(cell, str) and cell.startswith(tuple(f"'{first}" for first in FORMULA)) else cell


def as_csv(table: "pandas.DataFrame") -> str:
    """`table` as the text of a CSV file."""
    return table.rename(columns=escape_formula).map(escape_formula).to_csv(index=False)


def read_csv(path: Path, inside: Path | None = None) -> "pandas.DataFrame":
    """The table in a file that `as_csv` made the text of.

    Raises `OSError` where `user_file.opened` does, and ValueError where it is no table.
    """
    import pandas

    with opened(path, LARGEST, inside) as file:
        return pandas.read_csv(file).rename(columns=lambda name: unescape_formula(str(name))).map(unescape_formula)


def read_rows(lines: Iterable[str]) -> list[dict[str, str]]:
    """The rows of such a file without pandas: every value a text. Cells beyond the last column are left out."""
    rows = csv.DictReader(lines)
    return [
        {unescape_formula(name): unescape_formula(row[name] or "") for name in rows.fieldnames or []} for row in rows
    ]
