"""Plots of attribution maps and their evaluation."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.explainers.measure import Explained, area_under
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, new_figure, percent, show_image, tidy

COLORS = [BLUE, ORANGE, GREEN, "#8A3E86", GREY, "black", "#8A6A00", "#C03030", "#3AA6A6"]
STYLES = ["-", "--", "-.", ":"]
TERMS = {"grad_cam": "Grad-CAM", "gradient_shap": "Gradient SHAP", "kernel_shap": "Kernel SHAP"}
SCALE = "blue above zero, red below; each map on its own scale"


def maps_of_images(images: Tensor, captions: Sequence[str], maps: Mapping[str, Tensor], subject: str) -> Figure:
    """One column per image [n, C, H, W]: the image above its maps [≥ n, C, H, W], one row per method.

    A caption of two lines names another class than the answer in the second, and is orange.
    """
    count = len(images)
    figure, axes = new_figure(1.3 * count + 0.9, 1.35 * (len(maps) + 1) + 0.9, len(maps) + 1, count)
    for column in range(count):
        show_image(axes[0, column], images[column], captions[column], ORANGE if "\n" in captions[column] else "black")
        for row, values in enumerate(maps.values(), start=1):
            show_map(axes[row, column], values[column])
    for panel, name in zip(axes[:, 0], ("image", *map(broken, maps)), strict=True):
        panel.set_ylabel(name, fontsize=8, color=GREY)
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel(SCALE, fontsize=8)
    return figure


def broken(name: str) -> str:
    """A method name in words, in two lines if it has several."""
    first, *rest = in_words(name).split(" ", 1)
    return "\n".join((first, *rest))


def in_words(name: str) -> str:
    """A method name in words, such as 'input × gradient'."""
    return TERMS.get(name, name.replace("smoothgrad", "SmoothGrad").replace("_x_", " × ").replace("_", " "))


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
    figure, axes = new_figure(9, 4.2 + 0.22 * -(-len(explained) // 2), columns=2)
    directions = (("deletion", "deleted: lower is better"), ("insertion", "inserted: higher is better"))
    for panel, (which, done) in zip(axes[0], directions, strict=True):
        for number, (name, result) in enumerate(explained.items()):
            curve: Tensor = getattr(result, which)
            shares = torch.linspace(0, 1, curve.shape[1])
            color, line = COLORS[number % len(COLORS)], STYLES[number % len(STYLES)]
            areas = [area_under(each).mean().item() for each in (result.deletion, result.insertion)]
            label = f"{in_words(name)}: {areas[0]:.2f}, {areas[1]:.2f}"
            panel.plot(shares, curve.double().mean(0), line, color=color, label=label)
        title = f"{parts.capitalize()} {done}"
        tidy(panel, title, f"share of {parts} {done.partition(':')[0]}", "probability of the class")
        panel.set_ylim(-0.02, 1.02)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(percent)
    n = len(next(iter(explained.values())).maps)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8,
        title="area under the curve where deleted, where inserted", title_fontsize=8,
    )  # fmt: skip
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
    panel.set_xticks(range(len(names)), list(map(in_words, names)), rotation=40, ha="right", fontsize=8)
    panel.set_yticks(range(len(names)), list(map(in_words, names)), fontsize=8)
    for row, column in torch.cartesian_prod(torch.arange(len(names)), torch.arange(len(names))).tolist():
        value = values[row, column].item()
        color = "white" if abs(value) > 0.6 else "black"
        panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    panel.set_title(f"Agreement of maps: {subject}\n{n:,} test examples", fontsize=10)
    return figure
