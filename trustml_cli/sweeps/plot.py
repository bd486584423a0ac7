"""The plot of a whole sweep."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, FigureBase

from trustml_cli.metrics.columns import OVER_SEEDS, POOLED, in_words, is_share
from trustml_cli.plots.style import SERIES, percent, tidy
from trustml_cli.results.aggregate import Answers, widest

SEPARATE = 4  # lines from which on each has a panel of its own
ACROSS = 3  # panels in a row
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
    names = [name for name in varied if name not in numbers]
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
        count = known.groupby(rest, dropna=False).ngroups if rest and len(known) else 1
        rows = -(-count // ACROSS) if count >= SEPARATE else 1
        height = 4.6 if count < SEPARATE else 0.9 + 2.4 * rows
        return Drawing(lambda part: lines(part, known, numbers[0], rest, value, title), 7.6, height)
    labels = [", ".join(str(row[name]) for name in names) or "all" for _, row in summary.iterrows()]
    size = 5 + LABEL * max(map(len, labels)), 1.4 + 0.42 * len(labels)
    return Drawing(lambda part: bars(part.subplots(), summary, labels, ", ".join(names), value, title), *size)


def of_tasks(answers: Answers) -> str:
    """The beginning of a title with the tasks: 'fgsm, attack: '."""
    return f"{', '.join(map(str, answers.summary['task'].unique()))}: "


def over_seeds(summary: pandas.DataFrame) -> str:
    """The number of seeds of a mean, as text."""
    seeds = sorted(set(summary["seeds"]))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return "one seed" if seeds == [1] else f"mean of {count} seeds"


def series_name(key: Hashable) -> str:
    """The label of one series: its values, such as 'mlp, 0.1'. The legend's title has their names."""
    return ", ".join(map(str, key if isinstance(key, tuple) else (key,)))


def lines(part: FigureBase, known: pandas.DataFrame, x: str, names: Sequence[str], value: str, title: str) -> None:
    """A line with a band for each combination of `names` over the numbers in column `x`.

    From `SEPARATE` lines on, each has a panel of its own, with the others in grey behind it.
    """
    groups = dict(list(known.groupby(list(names), sort=False, dropna=False))) if names and len(known) else {"": known}
    if len(groups) < SEPARATE:
        panel = part.subplots()
        for number, (key, group) in enumerate(groups.items()):
            line(panel, group, x, value, SERIES[number % len(SERIES)], series_name(key))
        if names and len(known):
            columns = min(3, len(groups))
            panel.legend(
                frameon=False, fontsize=8, title=", ".join(names), title_fontsize=8, ncols=columns, loc="upper center",
                bbox_to_anchor=(0.5, -0.16),
            )  # fmt: skip
        tidy(panel, title, x, in_words(value))
        as_percent(panel.yaxis, value)
        return
    rows = -(-len(groups) // ACROSS)
    panels = part.subplots(rows, ACROSS, squeeze=False, sharex=True, sharey=True)
    for number, ((key, group), panel) in enumerate(zip(groups.items(), panels.flat, strict=False)):
        for other in groups.values():
            ordered = other.sort_values(x)
            panel.plot(ordered[x], ordered[value], color="#cccccc", linewidth=0.8, zorder=1)
        line(panel, group, x, value, SERIES[number % len(SERIES)], series_name(key))
        tidy(panel, series_name(key), "", "")
        panel.title.set_fontsize(9)
        as_percent(panel.yaxis, value)
    for panel in panels.flat[len(groups) :]:
        panel.set_axis_off()
    part.suptitle(f"{title}\nby {', '.join(names)}; grey: the others", fontsize=11)
    part.supxlabel(x, fontsize=10)
    part.supylabel(in_words(value), fontsize=10)


def line(panel: Axes, group: pandas.DataFrame, x: str, value: str, color: str, label: str) -> None:
    """One line with its interval as a band."""
    ordered, whose = group.sort_values(x), widest(group, value)
    panel.plot(ordered[x], ordered[value], "o-", color=color, markersize=4, label=label)
    low, high = ordered[f"{value}{whose}_ci_low"], ordered[f"{value}{whose}_ci_high"]
    panel.fill_between(ordered[x], low, high, color=color, alpha=0.18, linewidth=0)


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
