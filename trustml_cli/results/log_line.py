"""The log line of one row of metrics.csv."""

from collections.abc import Mapping
from typing import Any

from trustml_cli.metrics.columns import Column


def log_line(condition: Mapping[str, Any], values: Mapping[str, Any], columns: Mapping[str, Column]) -> str:
    """The condition, the headline with its interval and n, and the values whose columns are `logged`.

    `columns` holds the declaration of each value. Values that are missing (None or NaN) are left out; the result is
    empty if no value is left.
    """
    known = [name for name in columns if values[name] is not None and values[name] == values[name]]
    told = [f"{name} {shown(values[name])}{interval(name, values)}" for name in known if columns[name].headline]
    told += [f"{name} {shown(values[name])}" for name in known if columns[name].logged]
    where = ", ".join(f"{name} {shown(value)}" for name, value in condition.items())
    return (f"{where}: " if where and told else "") + ", ".join(told)


def interval(name: str, values: Mapping[str, Any]) -> str:
    """The 95 % interval and n of the value called `name`; empty where there are none."""
    low, high, n = (values.get(f"{name}_{part}") for part in ("ci_low", "ci_high", "n"))
    return f" ({shown(low)} to {shown(high)}, n = {n:,})" if n is not None else ""


def shown(value: Any) -> str:
    """Four significant digits of a number; anything else as text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
