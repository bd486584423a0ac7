"""Plots of the loss surface around images."""

from collections.abc import Sequence

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from trustml_cli.attacks.surface import Surface
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.style import ORANGE, new_figure, tidy


def loss_surfaces(surfaces: Sequence[Surface], classes: Sequence[str], subject: str) -> Figure:
    """A colour map of the loss around each image (at the centre), with the decision boundary of the true class.

    All maps share one colour scale, proportional to the square root of the loss.
    """
    figure, axes = new_figure(3.3 * len(surfaces) + 0.9, 3.7, columns=len(surfaces))
    highest = max(surface.loss.max().item() for surface in surfaces) or 1.0
    for panel, surface in zip(axes[0], surfaces, strict=True):
        offsets = surface.offsets.numpy()
        drawn = panel.pcolormesh(
            offsets, offsets, surface.loss.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, highest), shading="gouraud"
        )
        wrong = (surface.margin < 0).double()
        if 0 < wrong.mean() < 1:
            panel.contour(offsets, offsets, surface.margin.numpy(), levels=[0], colors=[ORANGE], linewidths=1.5)
        panel.plot(0, 0, "+", color="black", markersize=9)
        panel.set_aspect("equal")
        share = f"wrong in {in_percent(wrong.mean().item())} of the area" if wrong.any() else "right everywhere"
        tidy(panel, f"{classes[surface.label]}: {share}", "along the gradient's direction", "")
        panel.grid(False)
    axes[0, 0].set_ylabel("along a random direction")
    figure.colorbar(drawn, ax=axes[0, :].tolist(), label="cross-entropy (nats)", shrink=0.8)
    figure.suptitle(f"Loss around images: {subject}", fontsize=11)
    figure.supxlabel("+: the image; orange line: the decision boundary", fontsize=8)
    return figure
