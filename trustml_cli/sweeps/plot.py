"""The plot of a whole sweep."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trustml_cli.metrics.columns import OVER_SEEDS, POOLED
from trustml_cli.plots.style import new_figure, tidy
from trustml_cli.results.aggregate import Answers, widest

# Wong 2011, as in the style, ordered such that neighbours differ in brightness
SERIES = ("#0072B2", "#C44E00", "#007A59", "#7A4A8C", "#8C6D00", "#3A9BC9", "#B3446C", "#595959")
LABEL = 0.075  # maximum width of a label's character, in inches


@dataclass(frozen=True)
class Drawing:
    """A function that draws one panel, and the size in inches that it needs."""

    draw: Callable[[Axes], None]
    width: float
    height: float


def sweep_figure(answers: Sequence[Answers]) -> Figure:
    """A figure with one panel per entry of `answers`, stacked vertically."""
    drawings = [
        drawing_of(one, str(one.headline), subject=of_tasks(one) if len(answers) > 1 else "") for one in answers
    ]
    heights = [drawing.height for drawing in drawings]
    figure, axes = new_figure(
        max(drawing.width for drawing in drawings), sum(heights), rows=len(drawings), heights=heights
    )
    for drawing, panel in zip(drawings, axes[:, 0], strict=True):
        drawing.draw(panel)
    return figure


def drawing_of(answers: Answers, value: str, subject: str) -> Drawing:
    """Plot `value` over the swept overrides: lines over one number, a heat map over two numbers, bars over names.

    `subject` begins the title.
    """
    summary, varied = answers.summary, answers.varied
    numbers = [name for name in varied if pandas.to_numeric(summary[name], errors="coerce").notna().all()]
    names = [name for name in varied if name not in numbers]
    summary = summary.astype(dict.fromkeys(numbers, float))
    means = f"{subject}{value}: {over_seeds(summary)}"
    if len(numbers) == 2 and not names:
        grid = summary.pivot_table(index=numbers[1], columns=numbers[0], values=value)
        size = 2.5 + 0.8 * grid.shape[1], 2 + 0.55 * grid.shape[0]
        return Drawing(lambda panel: heat_map(panel, grid, means, value), *size)
    sampled = {POOLED: " and test images", OVER_SEEDS: ""}[widest(summary, value)]
    title = f"{means}, 95 % interval" + (f" over seeds{sampled}" if summary["seeds"].max() > 1 else "")
    if numbers:
        return Drawing(lambda panel: lines(panel, summary, numbers[0], [*names, *numbers[1:]], value, title), 7.2, 4.4)
    labels = [", ".join(str(row[name]) for name in names) or "all" for _, row in summary.iterrows()]
    size = 5 + LABEL * max(map(len, labels)), 1.4 + 0.42 * len(labels)
    return Drawing(lambda panel: bars(panel, summary, labels, ", ".join(names), value, title), *size)


def of_tasks(answers: Answers) -> str:
    """The beginning of a title with the tasks: 'fgsm, attack: '."""
    return f"{', '.join(map(str, answers.summary['task'].unique()))}: "


def over_seeds(summary: pandas.DataFrame) -> str:
    """The number of seeds of a mean, as text."""
    seeds = sorted(set(summary["seeds"]))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return "one seed" if seeds == [1] else f"mean of {count} seeds"


def series_name(key: Hashable, names: Sequence[str]) -> str:
    """The label of one series, such as 'model=mlp, trainer.lr=0.1'."""
    values = key if isinstance(key, tuple) else (key,)
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def lines(panel: Axes, summary: pandas.DataFrame, x: str, names: Sequence[str], value: str, title: str) -> None:
    """A line with a band for each combination of `names` over the numbers in column `x`."""
    known = summary[summary[value].notna()]  # some rows of a task may have no value
    groups = known.groupby(list(names), sort=False, dropna=False) if names else [((), known)]
    for number, (key, group) in enumerate(groups):
        ordered = group.sort_values(x)
        color = SERIES[number % len(SERIES)]
        panel.plot(ordered[x], ordered[value], "o-", color=color, markersize=4, label=series_name(key, names))
        whose = widest(summary, value)
        low, high = ordered[f"{value}{whose}_ci_low"], ordered[f"{value}{whose}_ci_high"]
        panel.fill_between(ordered[x], low, high, color=color, alpha=0.18, linewidth=0)
    if names and len(known):
        panel.legend(frameon=False, fontsize=8)
    tidy(panel, title, x, value)


def heat_map(panel: Axes, grid: pandas.DataFrame, title: str, value: str) -> None:
    """A heat map of a grid of values, labelled with its column and row values."""
    cells = grid.to_numpy()
    image = panel.imshow(cells, cmap="viridis", aspect="auto", origin="lower")
    panel.figure.colorbar(image, ax=panel, label=value)
    panel.set_xticks(range(grid.shape[1]), [f"{number:g}" for number in grid.columns])
    panel.set_yticks(range(grid.shape[0]), [f"{number:g}" for number in grid.index])
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), cell in np.ndenumerate(cells):
        if not np.isnan(cell):
            color = "white" if cell < middle else "black"
            panel.text(column, row, f"{cell:.3g}", ha="center", va="center", fontsize=8, color=color)
    panel.set(title=title, xlabel=str(grid.columns.name), ylabel=str(grid.index.name))


def bars(panel: Axes, summary: pandas.DataFrame, labels: Sequence[str], names: str, value: str, title: str) -> None:
    """A labelled bar with its interval for each row; `names` is the axis label."""
    values = summary[value].to_numpy(dtype=float)
    whose = widest(summary, value)
    low, high = (summary[f"{value}{whose}_ci_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
    panel.barh(range(len(labels)), values, color=SERIES[0], height=0.65)
    spread = np.nan_to_num(np.maximum([values - low, high - values], 0))
    panel.errorbar(values, range(len(labels)), xerr=spread, fmt="none", ecolor="black", capsize=3)
    panel.set_yticks(range(len(labels)), labels)
    margin = 0.5 if len(labels) > 1 else 1.0  # a single bar is drawn as narrow as one of several
    panel.set_ylim(len(labels) - 1 + margin, -margin)
    tidy(panel, title, value, names)
