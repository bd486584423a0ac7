"""Lines with their 95 % intervals: together in one panel, or from four lines on each in a panel of its own."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import NullLocator

from trustml_cli.plots.style import SERIES, logarithmic, percent, tidy

SEPARATE = 4  # lines from which on each has a panel of its own


@dataclass(frozen=True)
class Line:
    """Values `y` over `x`, with the ends of their intervals; all of the same length."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @staticmethod
    def of_rows(rows: Sequence[Mapping[Any, Any]], x: Hashable, value: str, whose: str = "") -> "Line":
        """The column `value` of rows of a table over the column `x`; `whose` is the kind of interval of a summary."""
        ordered = sorted(rows, key=lambda row: row[x])
        low, high = ([row[f"{value}{whose}_ci_{end}"] for row in ordered] for end in ("low", "high"))
        return Line([row[x] for row in ordered], [row[value] for row in ordered], low, high)

    @staticmethod
    def of_counts(x: Sequence[float], counts: Sequence[int], n: int) -> "Line":
        """Shares of `n`, with Wilson's interval."""
        from trustml_cli.metrics.intervals import wilson_interval  # here, as the plot of a sweep must not import torch

        low, high = zip(*(wilson_interval(count, n) for count in counts), strict=True)
        return Line(x, [count / n for count in counts], low, high)

    def draw(self, panel: Axes, color: str, label: str, **style: Any) -> None:
        """Draw the line with its band; `style` goes to matplotlib."""
        panel.plot(self.x, self.y, **{"marker": "o", "markersize": 4, "color": color, "label": label, **style})
        panel.fill_between(self.x, self.low, self.high, color=color, alpha=0.18, linewidth=0)


def across(count: int) -> int:
    """How many of `count` panels are beside each other."""
    return 2 if count == 4 else min(3, count)


def size_of(count: int) -> tuple[float, float]:
    """Width and height in inches of a figure with `count` lines."""
    return 7.6, 4.6 if count < SEPARATE else 0.9 + 2.4 * -(-count // across(count))


def draw_lines(
    part: FigureBase, lines: Mapping[str, Line], title: str, x: str, y: str, finish: Callable[[Axes], None],
    legend: str = "",
) -> None:  # fmt: skip
    """Draw `lines` by their names on a figure of the size `size_of(len(lines))`.

    From `SEPARATE` lines on, each has a panel of its own, with the others in grey behind it. `x` and `y` are the labels
    of the axes, `legend` says what the names are, and `finish` is called with every panel.
    """
    if len(lines) < SEPARATE:
        panel = part.subplots()
        for number, (name, line) in enumerate(lines.items()):
            line.draw(panel, SERIES[number % len(SERIES)], name)
        if any(lines):
            panel.legend(
                frameon=False, fontsize=9, title=legend, title_fontsize=8, ncols=len(lines), loc="upper center",
                bbox_to_anchor=(0.5, -0.16),
            )  # fmt: skip
        tidy(panel, title, x, y)
        finish(panel)
        return
    columns = across(len(lines))
    panels = part.subplots(-(-len(lines) // columns), columns, squeeze=False, sharex=True, sharey=True)
    for number, ((name, line), panel) in enumerate(zip(lines.items(), panels.flat, strict=False)):
        for other in lines.values():
            panel.plot(other.x, other.y, color="#cccccc", linewidth=0.8, zorder=1)
        line.draw(panel, SERIES[number % len(SERIES)], name)
        tidy(panel, name, "", "")
        panel.title.set_fontsize(9)
        finish(panel)
        panel.tick_params(labelbottom=number + columns >= len(lines))  # also above a place that is empty
    for panel in panels.flat[len(lines) :]:
        panel.set_axis_off()
    part.suptitle(f"{title}\n{f'by {legend}; ' if legend else ''}grey: the others", fontsize=11)
    part.supxlabel(x, fontsize=10)
    part.supylabel(y, fontsize=10)


def figure_of_lines(lines: Mapping[str, Line], title: str, x: str, y: str, finish: Callable[[Axes], None]) -> Figure:
    """A figure with nothing but `lines`; the arguments are those of `draw_lines`."""
    figure = Figure(figsize=size_of(len(lines)), dpi=150, layout="constrained")
    draw_lines(figure, lines, title, x, y, finish)
    return figure


def shares(panel: Axes) -> None:
    """An axis of shares: from 0 % to 100 %."""
    panel.set_ylim(-0.02, 1.02)
    panel.yaxis.set_major_formatter(percent)


def few_places(panel: Axes, places: Sequence[float], log: bool = False) -> None:
    """Ticks at these places of the x axis and nowhere else; on a logarithmic axis if asked."""
    if log:
        logarithmic(panel.xaxis)
    panel.set_xticks(list(places), [f"{place:,g}" for place in places])
    panel.xaxis.set_minor_locator(NullLocator())
