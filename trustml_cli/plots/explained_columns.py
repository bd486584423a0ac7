"""Plots of which columns of a table a classifier's answers come from."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import BLUE, ORANGE, new_figure, percent, tidy

MOST = 15  # columns shown


def column_bars(maps: Mapping[str, Tensor], names: Sequence[str], subject: str) -> Figure:
    """Each column's share of all contributions, by size, over all rows, for each method; `maps` are [N, P] each.

    The `MOST` columns with the largest mean share are shown, the largest first.
    """
    sizes = torch.stack([values.double().abs().mean(0) for values in maps.values()])
    shares = sizes / sizes.sum(1, keepdim=True).clamp_min(1e-300)
    order = shares.mean(0).argsort(descending=True)[:MOST].tolist()
    figure, axes = new_figure(8.0, 1.6 + 0.13 * len(order) * (len(maps) + 2))
    panel, height = axes[0, 0], 0.8 / len(maps)
    for number, (name, of_method) in enumerate(zip(maps, shares, strict=True)):
        places = [place + (number - (len(maps) - 1) / 2) * height for place in range(len(order))]
        panel.barh(places, of_method[order].tolist(), height, color=LINES[number % len(LINES)][0], label=name)
    panel.set_yticks(range(len(order)), [names[column] for column in order])
    panel.invert_yaxis()
    panel.xaxis.set_major_formatter(percent)
    n = len(next(iter(maps.values())))
    tidy(panel, f"Columns behind the answers: {subject}, {n:,} rows", "share of the mean absolute contribution", "")
    panel.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def row_bars(
    maps: Tensor, names: Sequence[str], values: Sequence[Sequence[str]], captions: Sequence[str], subject: str
) -> Figure:
    """The contributions [N, P] to the logit of single rows, column by column, each row in a panel of its own.

    `values` are those of the columns in each row shown, and `captions` its answer; the `MOST` largest are shown.
    """
    columns = min(3, len(values))
    rows = -(-len(values) // columns)
    shown = min(MOST, len(names))
    figure, axes = new_figure(4.2 * columns, 0.6 + rows * (1.1 + 0.24 * shown), rows, columns)
    for number, panel in enumerate(axes.flat):
        if number >= len(values):
            panel.set_axis_off()
            continue
        order = maps[number].abs().argsort(descending=True)[:shown].tolist()
        sizes = maps[number][order].tolist()
        panel.barh(range(shown), sizes, color=[BLUE if size > 0 else ORANGE for size in sizes])
        panel.set_yticks(range(shown), [f"{names[column]} = {values[number][column]}" for column in order], fontsize=8)
        panel.invert_yaxis()
        panel.axvline(0, color="black", linewidth=0.8)
        tidy(panel, captions[number], "contribution, in logits", "")
    figure.suptitle(f"{subject}: for (blue) and against (orange) the answer", fontsize=11)
    return figure
