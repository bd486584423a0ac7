"""Plots of model extraction: agreement with the victim and extracted weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter
from torch import Tensor

from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, new_figure, tidy

LINES = [(BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^-."), ("#8A3E86", "D:"), (GREY, "v-")]


def agreement_curve(rows: Sequence[Mapping[str, Any]], subject: str) -> Figure:
    """Agreement with the victim over the number of queries, one line with its 95 % interval per method."""
    figure, axes = new_figure(6.8, 4.2)
    panel = axes[0, 0]
    for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        own = [row for row in rows if row["method"] == method]
        queries = [row["queries"] for row in own]
        low, high = ([row[f"agreement_ci_{end}"] for row in own] for end in ("low", "high"))
        color, line = LINES[number % len(LINES)]
        panel.fill_between(queries, low, high, color=color, alpha=0.15, linewidth=0)
        panel.plot(
            queries, [row["agreement"] for row in own], line, color=color, label=method.replace("_", " "), markersize=5
        )
    budgets = sorted({row["queries"] for row in rows})
    panel.set_xscale("log")
    panel.set_xticks(budgets)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_ylim(-0.02, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.legend(frameon=False, loc="lower right")
    first = rows[0]
    rounded = "" if first["round_digits"] is None else f", answers rounded to {first['round_digits']} digits"
    title = f"Stealing {subject}{rounded}: {first['agreement_n']:,} test images"
    tidy(panel, title, "queries", "agreement with the victim")
    return figure


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
