"""The log line of one row of metrics.csv."""

from collections.abc import Mapping, Sequence
from typing import Any

from trustml_cli.metrics.columns import Column, written
from trustml_cli.metrics.numbers import significant
from trustml_cli.system.printable import printable

FEW = 20  # most rows of a table


def log_line(condition: Mapping[str, Any], values: Mapping[str, Any], columns: Mapping[str, Column]) -> str:
    """The condition, the headline with its interval and n, and the values whose columns are `logged`.

    `columns` holds the declaration of each value. Values that are missing (None or NaN) are left out; the result is
    empty if no value is left.
    """
    known = [name for name in columns if values[name] is not None and values[name] == values[name]]
    told = [f"{name} {shown(values[name], name)}{interval(name, values)}" for name in known if columns[name].headline]
    told += [f"{name} {shown(values[name], name)}" for name in known if columns[name].logged]
    where = ", ".join(f"{name} {shown(value)}" for name, value in condition.items())
    return (f"{where}: " if where and told else "") + ", ".join(told)


def headline_table(rows: Sequence[Mapping[str, Any]], conditions: Sequence[str], headline: str | None) -> list[str]:
    """The lines of a small table: the headline of each row with its interval and n, beside what differs.

    None for a single row, whose line has been logged, or without a headline.
    """
    if headline is None or len(rows) < 2:
        return []
    varied = [name for name in conditions if len({str(row.get(name)) for row in rows}) > 1]
    ends = [f"{headline}_{end}" for end in ("ci_low", "ci_high", "n")]
    parts = [end for end in ends if any(row.get(end) is not None for row in rows)]
    cells = [[*varied, headline, *(end.removeprefix(f"{headline}_") for end in parts)]]
    kinds = {name: headline for name in (headline, *parts) if not name.endswith("_n")}
    cells += [[shown(row.get(name), kinds.get(name, "")) for name in (*varied, headline, *parts)] for row in rows[:FEW]]
    cells = [[printable(cell) if cell != "None" else "" for cell in line] for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return [*lines, *([f"… {len(rows) - FEW} more rows in metrics.csv"] if len(rows) > FEW else [])]


def interval(name: str, values: Mapping[str, Any]) -> str:
    """The 95 % interval and n of the value called `name`; empty where there are none."""
    low, high, n = (values.get(f"{name}_{part}") for part in ("ci_low", "ci_high", "n"))
    if n is None:
        return ""
    return f" ({shown(low, name).removesuffix(' %')} to {shown(high, name)}, n = {n:,})"


def shown(value: Any, name: str = "") -> str:
    """A number as people read the value called `name`; anything else as text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (written(name, value) if name else significant(value)) if number else str(value)
