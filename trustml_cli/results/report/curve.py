"""A small curve for a cell of a table, as SVG."""

from math import isfinite

import pandas
from markupsafe import Markup

from trustml_cli.results.aggregate import Run

WIDTH, HEIGHT = 96, 28


def small_curve(run: Run) -> Markup:
    """The headline of a run over the one number among its conditions that varies; empty if there is no such curve."""
    numbers = [name for name in run.varied if pandas.api.types.is_numeric_dtype(run.metrics[name])]
    if run.headline is None or run.varied != numbers or len(numbers) != 1:
        return Markup()
    rows = run.metrics[[numbers[0], run.headline]].apply(pandas.to_numeric, errors="coerce").dropna()
    points = [(float(x), float(y)) for x, y in rows.sort_values(numbers[0]).to_numpy() if isfinite(x) and isfinite(y)]
    if len(points) < 2:
        return Markup()
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))
    low, high = (0, 1) if low >= 0 and high <= 1 else (low, high)
    path = " ".join(f"{at(x, left, right, WIDTH):.1f},{HEIGHT - at(y, low, high, HEIGHT):.1f}" for x, y in points)
    return Markup(
        f'<svg class="curve" viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 4}" aria-hidden="true">'
        f'<polyline points="{path}"/></svg>'
    )


def at(value: float, low: float, high: float, size: int) -> float:
    """Where `value` lies between `low` and `high`, on an axis of this size."""
    return size * (value - low) / (high - low) if high > low else size / 2
