"""The plot of a whole sweep."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, FigureBase

from trustml_cli.metrics.columns import OVER_SEEDS, POOLED, in_words, is_share
from trustml_cli.plots.lines import Line, draw_lines, size_of
from trustml_cli.plots.style import SERIES, percent, tidy
from trustml_cli.results.aggregate import Answers, widest

LABEL = 0.075  # maximum width of a label's character, in inches


@dataclass(frozen=True)
class Drawing:
    """A function that draws on a part of the figure, and the size in inches that it needs."""

    draw: Callable[[FigureBase], None]
    width: float
    height: float


def sweep_figure(answers: Sequence[Answers]) -> Figure:
    """A figure with one panel per entry of `answers`, stacked vertically."""
    drawings = [
        drawing_of(one, str(one.headline), subject=of_tasks(one) if len(answers) > 1 else "") for one in answers
    ]
    heights = [drawing.height for drawing in drawings]
    figure = Figure(figsize=(max(drawing.width for drawing in drawings), sum(heights)), dpi=150, layout="constrained")
    parts = figure.subfigures(len(drawings), 1, squeeze=False, height_ratios=heights)
    for drawing, part in zip(drawings, parts[:, 0], strict=True):
        drawing.draw(part)
    return figure


def drawing_of(answers: Answers, value: str, subject: str) -> Drawing:
    """Plot `value` over the swept overrides: lines over one number, a heat map over two numbers, bars over names.

    `subject` begins the title.
    """
    summary, varied = answers.summary, answers.varied
    numbers = [name for name in varied if pandas.to_numeric(summary[name], errors="coerce").notna().all()]
    names = [name for name in varied if name not in numbers and not follows(summary, name, varied)]
    summary = summary.astype(dict.fromkeys(numbers, float))
    means = f"{subject}{in_words(value)}: {over_seeds(summary)}"
    if len(numbers) == 2 and not names:
        grid = summary.pivot_table(index=numbers[1], columns=numbers[0], values=value)
        size = 2.5 + 0.8 * grid.shape[1], 2 + 0.55 * grid.shape[0]
        return Drawing(lambda part: heat_map(part.subplots(), grid, means, value), *size)
    sampled = {POOLED: " and test images", OVER_SEEDS: ""}[widest(summary, value)]
    title = f"{means}, 95 % interval" + (f" over seeds{sampled}" if summary["seeds"].max() > 1 else "")
    if numbers:
        rest = [*names, *numbers[1:]]
        known = summary[summary[value].notna()]  # some rows of a task may have no value
        lines = lines_of(known, numbers[0], rest, value)

        def draw(part: FigureBase) -> None:
            finish = lambda panel: as_percent(panel.yaxis, value)  # noqa: E731
            draw_lines(part, lines, title, numbers[0], in_words(value), finish, ", ".join(rest))

        return Drawing(draw, *size_of(len(lines)))
    missing = "–" if names else "all"
    labels = [series_name(tuple(row[name] for name in names)) or missing for _, row in summary.iterrows()]
    size = 5 + LABEL * max(map(len, labels)), 1.4 + 0.42 * len(labels)
    return Drawing(lambda part: bars(part.subplots(), summary, labels, ", ".join(names), value, title), *size)


def follows(summary: pandas.DataFrame, name: str, varied: Sequence[str]) -> bool:
    """Whether a condition that some rows lack follows from the others, as the epsilon of the kinds that have one."""
    others = [other for other in varied if other != name]
    return bool(others) and bool(summary[name].isna().any()) and not summary.duplicated(others).any()


def of_tasks(answers: Answers) -> str:
    """The beginning of a title with the tasks: 'fgsm, attack: '."""
    return f"{', '.join(map(str, answers.summary['task'].unique()))}: "


def over_seeds(summary: pandas.DataFrame) -> str:
    """The number of seeds of a mean, as text."""
    seeds = sorted(set(summary["seeds"]))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return "one seed" if seeds == [1] else f"mean of {count} seeds"


def series_name(key: Hashable) -> str:
    """The label of one series: its values where it has them, such as 'mlp, 0.1'. The legend's title has their names."""
    return ", ".join(str(value) for value in (key if isinstance(key, tuple) else (key,)) if pandas.notna(value))


def lines_of(known: pandas.DataFrame, x: str, names: Sequence[str], value: str) -> dict[str, Line]:
    """A line over the numbers in column `x` for each combination of `names`."""
    groups = list(known.groupby(list(names), sort=False, dropna=False)) if names and len(known) else [("", known)]
    return {series_name(key): Line.of_rows(own.to_dict("records"), x, value, widest(own, value)) for key, own in groups}


def as_percent(axis: Axis, value: str) -> None:
    """Tick labels in percent where `value` is a share."""
    if is_share(value):
        axis.set_major_formatter(percent)


def heat_map(panel: Axes, grid: pandas.DataFrame, title: str, value: str) -> None:
    """A heat map of a grid of values, labelled with its column and row values."""
    cells = grid.to_numpy()
    image = panel.imshow(cells, cmap="viridis", aspect="auto", origin="lower")
    bar = panel.figure.colorbar(image, ax=panel, label=in_words(value))
    as_percent(bar.ax.yaxis, value)
    panel.set_xticks(range(grid.shape[1]), [f"{number:g}" for number in grid.columns])
    panel.set_yticks(range(grid.shape[0]), [f"{number:g}" for number in grid.index])
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), cell in np.ndenumerate(cells):
        if not np.isnan(cell):
            color = "white" if cell < middle else "black"
            text = f"{100 * cell:.1f}" if is_share(value) else f"{cell:.3g}"
            panel.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
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
    tidy(panel, title, in_words(value), names)
    as_percent(panel.xaxis, value)
