"""Plots of functions fitted to points of a curve, and of their errors over capacity."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import BLUE, GREY, logarithmic, new_figure, tidy

SHOWN = 4  # capacities that are drawn

Floats = NDArray[np.float64]
WORDS = {"train_error": "training points", "validation_error": "other points in the range", "outside_error": "outside"}


def fitted_functions(
    kind: str,
    fits: Mapping[str, Mapping[int, Floats]],
    points: Mapping[str, tuple[Floats, Floats]],
    grid: Floats,
    truth: Floats,
) -> Figure:
    """For each set of `points` (places and values), the functions of some capacities on the `grid`."""
    figure, axes = new_figure(3.9 * len(fits), 3.9, columns=len(fits))
    for panel, (name, by_capacity) in zip(axes[0], fits.items(), strict=True):
        x, y = points[name]
        panel.axvspan(-1, 1, color="#f0f0f0", linewidth=0)
        panel.plot(grid, truth, color=GREY, linewidth=1, linestyle="--", label="the curve")
        capacities = sorted(by_capacity)
        some = sorted({capacities[at] for at in np.linspace(0, len(capacities) - 1, SHOWN).round().astype(int)})
        for capacity, (color, line) in zip(some, LINES[1:], strict=False):
            panel.plot(grid, by_capacity[capacity], color=color, linestyle=line, linewidth=1.3, label=f"{capacity}")
        panel.plot(x, y, "o", color=BLUE, markersize=3.5, label="training points")
        panel.set_ylim(-2.5, 2.5)
        panel.set_xlim(grid[0], grid[-1])
        tidy(panel, f"{name}: {len(x)} points", "x", "" if panel is not axes[0, 0] else "y")
    capacity_name = "degree" if kind == "polynomial" else "width"
    handles, labels = axes[0, 0].get_legend_handles_labels()
    named = [f"{capacity_name} {label}" if label.isdigit() else label for label in labels]
    figure.legend(handles, named, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.suptitle(
        f"{kind}: functions of more and more capacity; grey is the range of the training points", fontsize=11
    )
    return figure


def errors_over_capacity(rows: Sequence[Mapping[str, Any]], noise: float, draws: int) -> Figure:
    """Training, validation and outside errors over the capacity, for each function (rows) and set of points."""
    kinds = list(dict.fromkeys(row["function"] for row in rows))
    names = list(dict.fromkeys(row["points"] for row in rows))
    figure, axes = new_figure(3.9 * len(names), 0.8 + 3.1 * len(kinds), len(kinds), len(names))
    for across, kind in enumerate(kinds):
        for column, name in enumerate(names):
            panel = axes[across, column]
            own = [row for row in rows if (row["function"], row["points"]) == (kind, name)]
            capacities = [row["capacity"] for row in own]
            for (error, label), (color, line) in zip(WORDS.items(), LINES, strict=False):
                values = [max(row[error], 1e-4) for row in own]
                panel.plot(capacities, values, color=color, linestyle=line, marker="o", markersize=3, label=label)
            panel.axhline(max(noise**2, 1e-4), color=GREY, linewidth=0.8, linestyle=":", label="noise")
            logarithmic(panel.yaxis)
            panel.set_ylim(1e-4, 1e4)
            panel.yaxis.set_minor_formatter("")
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if kind == "network":
                logarithmic(panel.xaxis)
                panel.set_xticks(capacities, [str(capacity) for capacity in capacities])
                panel.set_xticks([], minor=True)
            label = "degree" if kind == "polynomial" else "hidden units"
            tidy(panel, f"{kind}, {name} points", label, "" if column else "mean squared error")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(f"errors, means over {draws} draws of the noise", fontsize=11)
    return figure
