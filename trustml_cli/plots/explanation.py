"""Plots of attribution maps and their evaluation."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from trustml_cli.explainers.measure import Explained, area_under
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, new_figure, show_image, tidy

COLORS = [BLUE, ORANGE, GREEN, "#8A3E86", GREY, "black", "#8A6A00", "#C03030", "#3AA6A6"]
STYLES = ["-", "--", "-.", ":"]
SCALE = "blue above zero, red below; each map on its own scale"


def one_method(images: Tensor, captions: Sequence[str], maps: Mapping[str, Tensor], subject: str) -> Figure:
    """One column per image [n, C, H, W]: the image above its maps.

    `maps` holds the method's map and, for a gradient, its product with the input, each [≥ n, C, H, W].
    """
    count = len(images)
    figure, axes = new_figure(1.45 * count + 0.5, 1.55 * (len(maps) + 1) + 0.8, len(maps) + 1, count)
    for column in range(count):
        show_image(axes[0, column], images[column], captions[column])
        for row, values in enumerate(maps.values(), start=1):
            show_map(axes[row, column], values[column])
    for panel, name in zip(axes[:, 0], ("image", *map(broken, maps)), strict=True):
        panel.set_ylabel(name, fontsize=9, color=GREY)
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel(SCALE, fontsize=8)
    return figure


def methods_side_by_side(images: Tensor, captions: Sequence[str], maps: Mapping[str, Tensor], subject: str) -> Figure:
    """One row per image [n, C, H, W]: the image, then the maps [≥ n, C, H, W] of all methods."""
    count = len(images)
    figure, axes = new_figure(1.5 * (len(maps) + 1) + 0.3, 1.5 * count + 0.9, count, len(maps) + 1)
    for row in range(count):
        show_image(axes[row, 0], images[row], captions[row])
        for column, (name, values) in enumerate(maps.items(), start=1):
            show_map(axes[row, column], values[row])
            if row == 0:
                axes[row, column].set_title(broken(name), fontsize=8)
    figure.suptitle(f"Maps of the pixels behind the logit: {subject}", fontsize=11)
    figure.supxlabel(SCALE, fontsize=8)
    return figure


def broken(name: str) -> str:
    """A method name with a line break before "gradient" or "× input"."""
    return name.replace("_gradient", "\ngradient").replace("_x_input", "\n× input")


def show_map(axes: Axes, values: Tensor) -> None:
    """Show one map [C, H, W], summed over its channels: blue where positive, red where negative."""
    summed = values.detach().cpu().float().sum(0)
    largest = summed.abs().flatten().quantile(0.995).item() or 1.0  # robust colour scale, not set by outliers
    axes.imshow(summed.numpy(), cmap="RdBu", vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def replacement_curves(explained: Mapping[str, Explained], subject: str, parts: str = "pixels") -> Figure:
    """Deletion and insertion curves: mean class probability over the share of `parts`, the most important ones first.

    `parts` are pixels, or columns of a table.
    """
    figure, axes = new_figure(10, 4.0, columns=2)
    directions = (
        ("deletion", "deleted: lower is better", "upper right"),
        ("insertion", "inserted: higher is better", "lower right"),
    )
    for panel, (which, done, corner) in zip(axes[0], directions, strict=True):
        for number, (name, result) in enumerate(explained.items()):
            curve: Tensor = getattr(result, which)
            shares = torch.linspace(0, 1, curve.shape[1])
            color, line = COLORS[number % len(COLORS)], STYLES[number % len(STYLES)]
            label = f"{name} ({area_under(curve).mean().item():.2f})"
            panel.plot(shares, curve.double().mean(0), line, color=color, label=label)
        title = f"{parts.capitalize()} {done}"
        tidy(panel, title, f"share of {parts} {done.partition(':')[0]}", "probability of the class")
        panel.set_ylim(-0.02, 1.02)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        panel.legend(frameon=False, fontsize=8, title="area under the curve", title_fontsize=8, loc=corner)
    n = len(next(iter(explained.values())).maps)
    figure.suptitle(f"{subject}: mean of {n:,} test examples", fontsize=11)
    return figure


def correlation_matrix(correlations: Mapping[str, Mapping[str, Tensor]], subject: str, n: int) -> Figure:
    """The mean rank correlation of the maps of each pair of methods."""
    names = list(correlations)
    values = torch.tensor([[correlations[one][other].mean().item() for other in names] for one in names])
    side = 2.2 + 0.75 * len(names)
    figure, axes = new_figure(side + 1.0, side)
    panel = axes[0, 0]
    image = panel.imshow(values.numpy(), cmap="RdBu", vmin=-1, vmax=1)
    figure.colorbar(image, ax=panel, label="rank correlation", shrink=0.8)
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    for row, column in torch.cartesian_prod(torch.arange(len(names)), torch.arange(len(names))).tolist():
        value = values[row, column].item()
        color = "white" if abs(value) > 0.6 else "black"
        panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    panel.set_title(f"Agreement of maps: {subject}\n{n:,} test examples", fontsize=10)
    return figure
