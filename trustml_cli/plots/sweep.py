"""One picture of a whole sweep."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas
from matplotlib.figure import Figure

from trustml_cli.plots.style import new_figure, tidy

# Wong 2011, as in style, in an order in which neighbours differ in brightness
SERIES = ("#0072B2", "#C44E00", "#007A59", "#7A4A8C", "#8C6D00", "#3A9BC9", "#B3446C", "#595959")


def sweep_figure(summary: pandas.DataFrame, conditions: Sequence[str], value: str) -> Figure:
    """`value` over what was swept: a line for each series over one number, a heat map over two, bars over names."""
    varied = [name for name in conditions if summary[name].nunique(dropna=False) > 1]
    numbers = [name for name in varied if pandas.to_numeric(summary[name], errors="coerce").notna().all()]
    names = [name for name in varied if name not in numbers]
    summary = summary.astype(dict.fromkeys(numbers, float))
    if len(numbers) == 2 and not names:
        return heat_map(summary, numbers[0], numbers[1], value)
    if numbers:
        return lines(summary, numbers[0], [*names, *numbers[1:]], value)
    return bars(summary, names, value)


def title_of(summary: pandas.DataFrame, value: str) -> str:
    """What is shown, and over how many seeds."""
    seeds = sorted(set(summary["seeds"]))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{value}: mean of {count} seeds, 95 % interval" if seeds != [1] else f"{value}: one seed, 95 % interval"


def series_name(key: Hashable, names: Sequence[str]) -> str:
    """'model=mlp, trainer.lr=0.1' for the values of one series."""
    values = key if isinstance(key, tuple) else (key,)
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def lines(summary: pandas.DataFrame, x: str, names: Sequence[str], value: str) -> Figure:
    """A line with a band for each combination of `names` over the numbers in column `x`."""
    figure, axes = new_figure(7.2, 4.4)
    panel = axes[0, 0]
    groups = summary.groupby(list(names), sort=False, dropna=False) if names else [((), summary)]
    for number, (key, group) in enumerate(groups):
        ordered = group.sort_values(x)
        color = SERIES[number % len(SERIES)]
        panel.plot(ordered[x], ordered[value], "o-", color=color, markersize=4, label=series_name(key, names))
        low, high = ordered[f"{value}_ci_low"], ordered[f"{value}_ci_high"]
        panel.fill_between(ordered[x], low, high, color=color, alpha=0.18, linewidth=0)
    if names:
        panel.legend(frameon=False, fontsize=8)
    tidy(panel, title_of(summary, value), x, value)
    return figure


def heat_map(summary: pandas.DataFrame, x: str, y: str, value: str) -> Figure:
    """The numbers of columns `x` and `y` as a grid of cells with their values."""
    grid = summary.pivot_table(index=y, columns=x, values=value)
    figure, axes = new_figure(2.5 + 0.8 * grid.shape[1], 2 + 0.55 * grid.shape[0])
    panel = axes[0, 0]
    cells = grid.to_numpy()
    image = panel.imshow(cells, cmap="viridis", aspect="auto", origin="lower")
    figure.colorbar(image, ax=panel, label=value)
    panel.set_xticks(range(grid.shape[1]), [f"{number:g}" for number in grid.columns])
    panel.set_yticks(range(grid.shape[0]), [f"{number:g}" for number in grid.index])
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), cell in np.ndenumerate(cells):
        if not np.isnan(cell):
            color = "white" if cell < middle else "black"
            panel.text(column, row, f"{cell:.3g}", ha="center", va="center", fontsize=8, color=color)
    panel.set(title=title_of(summary, value), xlabel=x, ylabel=y)
    return figure


def bars(summary: pandas.DataFrame, names: Sequence[str], value: str) -> Figure:
    """A bar with its interval for each combination of `names`."""
    labels = [", ".join(str(row[name]) for name in names) or "all" for _, row in summary.iterrows()]
    figure, axes = new_figure(6.4, 1.4 + 0.42 * len(labels))
    panel = axes[0, 0]
    values = summary[value].to_numpy(dtype=float)
    low, high = summary[f"{value}_ci_low"].to_numpy(dtype=float), summary[f"{value}_ci_high"].to_numpy(dtype=float)
    panel.barh(range(len(labels)), values, color=SERIES[0], height=0.65)
    spread = np.nan_to_num(np.maximum([values - low, high - values], 0))
    panel.errorbar(values, range(len(labels)), xerr=spread, fmt="none", ecolor="black", capsize=3)
    panel.set_yticks(range(len(labels)), labels)
    panel.invert_yaxis()
    tidy(panel, title_of(summary, value), value, ", ".join(names))
    return figure
