"""CSV files that are safe to open in a spreadsheet or terminal: no formulas, no control characters."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustml_cli.system.printable import printable
from trustml_cli.system.user_file import MB, opened

if TYPE_CHECKING:  # not imported at run time, because a listing does not need it
    import pandas

LARGEST = 64 * MB  # maximum size in bytes of a table that is read
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # OWASP, "CSV Injection"; and the quote, for reversibility


def escape_formula(value: Any) -> Any:
    """A value as a CSV cell: a text that begins like a formula is prefixed with a quote; numbers are unchanged.

    Control characters in a text become escape sequences, and remain escaped when the file is read.
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
    """The inverse of `escape_formula`."""
    return cell[1:] if isinstance(cell, str) and cell.startswith(tuple(f"'{first}" for first in FORMULA)) else cell


def as_csv(table: "pandas.DataFrame", header: bool = True) -> str:
    """`table` as the text of a CSV file; without the header it continues one."""
    return table.rename(columns=escape_formula).map(escape_formula).to_csv(index=False, header=header)


def rows_as_csv(rows: Sequence[Mapping[str, Any]], header: bool = True) -> str:
    """The same of rows, whose columns are all that any row has; without pandas, whose import takes half a second.

    A value that a row lacks, None and nan are empty cells.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = StringIO()
    file = csv.writer(text, lineterminator="\n")
    if header:
        file.writerow(map(escape_formula, columns))
    for row in rows:
        values = (row.get(column) for column in columns)
        file.writerow("" if value != value else escape_formula(value) for value in values)
    return text.getvalue()


def read_csv(path: Path, inside: Path | None = None) -> "pandas.DataFrame":
    """Read a table that was written with `as_csv`.

    Raises `OSError` as `user_file.opened` does, and ValueError for a malformed table.
    """
    import pandas

    with opened(path, LARGEST, inside) as file:
        return pandas.read_csv(file).rename(columns=lambda name: unescape_formula(str(name))).map(unescape_formula)


def read_rows(lines: Iterable[str]) -> list[dict[str, str]]:
    """The rows of such a file without pandas, all values as text. Cells beyond the last column are dropped."""
    rows = csv.DictReader(lines)
    return [
        {unescape_formula(name): unescape_formula(row[name] or "") for name in rows.fieldnames or []} for row in rows
    ]
