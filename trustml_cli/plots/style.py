"""The look that all plots share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:  # the picture of a sweep needs no torch
    from torch import Tensor

# after Wong 2011 (Nature Methods 8, 441), a shade darker for text: told apart with any colour vision
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#C44E00", "#007A59", "#595959"


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple[Figure, NDArray[Any]]:
    """A figure of so many inches and its axes as an array [rows, columns]; rows of equal height unless `heights`."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, height_ratios=heights)


def tidy(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, axis labels, and a grid that stays in the background."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def show_image(axes: Axes, pixels: "Tensor", caption: str, color: str = "black") -> None:
    """One image [C, H, W] with values in [0, 1] and a caption above it; axes without ticks."""
    image = pixels.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
    if image.shape[2] == 1:
        axes.imshow(image[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(image, interpolation="nearest")
    axes.set_title(caption, fontsize=8, color=color)
    axes.set_xticks([])
    axes.set_yticks([])


def label_answer(name: str, confidence: float) -> str:
    """'dog (97%)'."""
    return f"{name} ({confidence:.0%})"
