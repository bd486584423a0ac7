"""Measured values as table cells that can be displayed and sorted."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from sys import float_info
from typing import Any, TypeGuard

import pandas

from trustml_cli.metrics.columns import OVER_SEEDS, PARTS, POOLED, Better, written
from trustml_cli.metrics.numbers import significant

MOST_ROWS = 10_000  # maximum rows of a table on a page; a browser takes minutes to show more
TIMES = ("seconds", "per_second")  # endings of values that differ from run to run
NOTHING = "–"  # shown for a missing value
LARGEST = float_info.max


@dataclass(frozen=True)
class Cell:
    """One value: its text, a smaller line under it (interval and n), and its sort key."""

    text: str
    note: str = ""
    sort: float | str = ""
    best: bool = False
    bar: tuple[float, float, float] | None = None
    """For a share: value and both ends of its interval, in percent."""


@dataclass(frozen=True)
class Table:
    """Column titles and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    conditions: int
    """The number of leading columns that are conditions of the measured values."""
    left_out: int = 0
    """The number of further rows in the file."""


def readable(frame: pandas.DataFrame, conditions: Sequence[str], better: Mapping[str, str] | None = None) -> Table:
    """Merge intervals and counts in `frame` into the cells of their values; columns without a value are left out.

    Rows after the first 10,000 are left out. For columns that are `higher` or `lower` in `better`, the best value is
    marked among rows with equal `conditions`, except the first one, which names the row.
    """
    left_out = max(0, len(frame) - MOST_ROWS)
    frame = frame.head(MOST_ROWS)
    columns = [str(name) for name in frame.columns]
    conditions = [name for name in conditions if name in columns]
    values = [
        name for name in columns if name not in conditions and not is_part(name, columns) and frame[name].notna().any()
    ]
    ways = better or {}
    best = {name: best_rows(frame, name, conditions[1:], ways[name]) if name in ways else set() for name in values}
    rows = [
        [
            *(Cell(shown(row[name]), sort=sortable(row[name])) for name in conditions),
            *(measured(row, name, best=number in best[name]) for name in values),
        ]
        for number, row in enumerate(frame.to_dict("records"))
    ]
    return Table([*conditions, *values], rows, len(conditions), left_out)


def is_part(name: str, columns: Iterable[str]) -> bool:
    """Whether a column holds the interval, standard deviation or count of another column."""
    over = tuple(f"{whose}{end}" for whose in (OVER_SEEDS, POOLED) for end in PARTS)
    return any(name.endswith(end) and name.removesuffix(end) in columns for end in (*PARTS, *over, "_std"))


def measured(row: dict[Hashable, Any], name: str, best: bool = False) -> Cell:
    """The cell of one value, with its interval where there is one; shares are in percent."""
    value, n = row.get(name), row.get(f"{name}_n")
    if pandas.isna(value):
        return Cell(NOTHING, sort=float("-inf"))
    if not is_number(value):
        return Cell(shown(value), sort=sortable(value), best=best)
    notes, bar = [], None
    for whose in ("", OVER_SEEDS, POOLED):
        low, high = (row.get(f"{name}{whose}_ci_{end}") for end in ("low", "high"))
        if is_number(low) and is_number(high) and low <= value <= high:  # False if a bound is nan
            notes.append(f"{written(name, low).removesuffix(' %')} to {written(name, high)}{whose.replace('_', ' ')}")
            bar = (100 * value, 100 * low, 100 * high) if low >= 0 and high <= 1 else None
    if is_number(n) and isfinite(n):
        notes.append(f"n = {int(n):,}")
    return Cell(written(name, value) if isfinite(value) else shown(value), ", ".join(notes), sortable(value), best, bar)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a table cell holds a number; a modified file may hold anything."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def best_rows(frame: pandas.DataFrame, name: str, conditions: Sequence[str], better: str) -> set[int]:
    """Positions of the rows with the best value among two or more rows with equal conditions.

    `better` is `higher` or `lower`; for anything else, no row. Nor is there one where its interval overlaps that of
    another row, nor for a time: chance may have made the difference.
    """
    direction = {Better.higher.value: 1, Better.lower.value: -1}.get(better)
    if direction is None or name.endswith(TIMES) or not pandas.api.types.is_numeric_dtype(frame[name]):
        return set()
    numbered = frame.reset_index(drop=True)
    groups = numbered.groupby(list(conditions), dropna=False) if conditions else [((), numbered)]
    found: set[int] = set()
    for _, group in groups:
        values = direction * group[name].dropna()
        if len(values) > 1 and values.nunique() > 1:
            best = values.index[values == values.max()]
            if not any(overlap(group, name, one, other) for one in best for other in values.index.difference(best)):
                found |= {int(position) for position in best}
    return found


def overlap(group: pandas.DataFrame, name: str, one: int, other: int) -> bool:
    """Whether the intervals of value `name` in two rows overlap; False where they have none."""
    ends = [f"{name}_ci_{end}" for end in ("low", "high")]
    if not {*ends} <= {*group.columns}:
        return False
    low, high = (pandas.to_numeric(group[end], errors="coerce") for end in ends)
    return bool(low[one] <= high[other] and low[other] <= high[one])


def shown(value: Any) -> str:
    """A value for display: four significant digits, with thousands separators."""
    if value is None or (isinstance(value, float) and pandas.isna(value)):
        return NOTHING
    if not is_number(value) or abs(value) > LARGEST:
        return str(value)
    return significant(value)


def sortable(value: Any) -> float | str:
    """The value as a number if possible, so that 10 sorts after 9."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return number
