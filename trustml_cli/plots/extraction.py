"""Plots of model extraction: agreement with the victim and extracted weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.lines import Line, few_places, figure_of_lines, shares
from trustml_cli.plots.style import new_figure


def agreement_curve(rows: Sequence[Mapping[str, Any]], subject: str) -> Figure:
    """Agreement with the victim over the number of queries, one line with its 95 % interval per method."""
    methods = dict.fromkeys(row["method"] for row in rows)
    lines = {
        name.replace("_", " "): Line.of_rows([row for row in rows if row["method"] == name], "queries", "agreement")
        for name in methods
    }
    budgets = sorted({row["queries"] for row in rows})

    def finish(panel: Axes) -> None:
        shares(panel)
        few_places(panel, budgets, log=True)

    first = rows[0]
    rounded = "" if first["round_digits"] is None else f", answers rounded to {first['round_digits']} digits"
    title = f"Stealing {subject}{rounded}: {first['agreement_n']:,} test images"
    return figure_of_lines(lines, title, "queries", "agreement with the victim", finish)


def weights_side_by_side(
    parameters: Mapping[str, Tensor], shape: tuple[int, ...], classes: Sequence[str], subject: str
) -> Figure:
    """The weights of linear classifiers as images, one row per classifier and one column per class.

    `parameters` are weights and bias [K, D + 1]. The mean over the classes is subtracted, because the softmax is
    invariant to it. Each row has its own scale, because labels do not determine it. Channels are averaged.
    """
    count = min(len(classes), 10)
    figure, axes = new_figure(1.0 * count + 1.1, 1.12 * len(parameters) + 0.75, len(parameters), count)
    for row, (name, values) in enumerate(parameters.items()):
        weights = (values - values.mean(0))[:, :-1].view(-1, *shape).mean(1)
        largest = weights.abs().flatten().quantile(0.995).item() or 1.0
        for column in range(count):
            panel = axes[row, column]
            panel.imshow(weights[column].numpy(), cmap="RdBu", vmin=-largest, vmax=largest, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            if row == 0:
                panel.set_title(classes[column], fontsize=9)
        axes[row, 0].set_ylabel(name.replace("_", "\n", 1), fontsize=9)
    figure.suptitle(f"Weights of {subject}, by class", fontsize=11)
    figure.supxlabel("blue speaks for the class, red against it; each row on its own scale", fontsize=8)
    return figure
