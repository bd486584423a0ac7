"""The shared style and helper functions of all plots."""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

if TYPE_CHECKING:  # the plot of a sweep must not import torch
    from torch import Tensor

# after Wong 2011 (Nature Methods 8, 441), slightly darker for text: distinguishable with colour-blindness
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#C44E00", "#007A59", "#595959"
SERIES = (BLUE, ORANGE, GREEN, "#7A4A8C", "#8C6D00", "#3A9BC9", "#B3446C", GREY)
"""Colours of several lines, after the same source, ordered such that neighbours differ in brightness."""
MARGIN = 0.07  # inches above and below each panel and title
GAP = 0.06  # gap between tiles in tile widths; three times as much between rows, for the captions

rcParams["text.parse_math"] = False  # show "$" in class names literally


class PlainLogFormatter(LogFormatter):
    """Tick labels of a logarithmic axis as plain numbers instead of powers in mathtext."""

    def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
        return f"{x:g}"


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers as tick labels."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    axis.set_major_formatter(PlainLogFormatter())
    axis.set_minor_formatter(PlainLogFormatter())


def percent(share: float, _: object = None) -> str:
    """A tick label in percent with as few digits as possible, such as '0.1 %'."""
    return f"{100 * share:.6g} %"


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple[Figure, NDArray[Any]]:
    """A figure (`width` × `height` inches) and its axes [rows, columns]; `heights` are the relative row heights."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    figure.get_layout_engine().set(h_pad=MARGIN)  # type: ignore[union-attr, call-arg]
    return figure, figure.subplots(rows, columns, squeeze=False, height_ratios=heights)


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a PNG file; characters missing in the font become boxes, without a warning.

    Its title and other texts of the whole figure are made smaller where they are wider than it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        canvas = FigureCanvasAgg(figure)
        for text in figure.texts:
            extent = text.get_window_extent(canvas.get_renderer())  # type: ignore[no-untyped-call]
            wide = extent.width / (0.98 * figure.bbox.width)
            text.set_fontsize(float(text.get_fontsize()) / max(1.0, wide))
        # the same bytes as `savefig`, which draws everything twice
        canvas.print_png(path)  # type: ignore[no-untyped-call]


def tidy(axes: Axes, title: str, x: str, y: str) -> None:
    """Set title, axis labels and a grid behind the data, and hide the top and right spines."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(axes: Axes, columns: int = 4) -> None:
    """Put the legend below the axes, off the curves."""
    axes.legend(
        frameon=False, fontsize=9, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.16), columnspacing=1.2
    )


def as_picture(pixels: "Tensor") -> NDArray[Any]:
    """An image [C, H, W] in matplotlib's layout: [H, W, 3], or [H, W] if it is grey."""
    image = pixels.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
    return image[:, :, 0] if image.shape[2] == 1 else image


def side_by_side(images: "Tensor") -> bytes:
    """Images [N, C, H, W] beside each other as a PNG, one pixel for each of theirs, with a grey pixel between them."""
    from PIL import Image

    pictures = [as_picture(image) for image in images]
    gap = np.full_like(pictures[0][:, :1], 0.5)
    row = np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)
    buffer = BytesIO()
    Image.fromarray((row * 255).round().astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def show_image(axes: Axes, pixels: "Tensor", caption: str, color: str = "black") -> None:
    """Show one image [C, H, W] (values in [0, 1]) with a caption above it, without ticks."""
    axes.imshow(as_picture(pixels), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(caption, fontsize=8, color=color)
    axes.set_xticks([])
    axes.set_yticks([])


def outline(axes: Axes, with_it: "Tensor", without: "Tensor", shown: AxesImage | None = None) -> None:
    """Draw a frame around what differs between two images [C, H, W], unless that is most of the image.

    `shown` is the image on `axes`; None: the only one there.
    """
    changed = (with_it.float().cpu() - without.float().cpu()).abs().amax(0) > 1 / 512
    rows, columns = (changed.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    if not rows or (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0]) > 0.75 * changed.numel():
        return
    left, right, _, top = (shown or axes.images[0]).get_extent()
    scale = (right - left) / changed.shape[1]
    corner = left + scale * columns[0], top + scale * rows[0]
    width, height = scale * (columns[-1] + 1 - columns[0]), scale * (rows[-1] + 1 - rows[0])
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ORANGE, linewidth=1.5, clip_on=False))


def tile(axes: Axes, row: int, column: float, pixels: "Tensor", caption: str = "", color: str = "black") -> None:
    """Show one image in a grid of equally sized images in one `axes`, which is faster than one axes per image."""
    image, height = as_picture(pixels), pixels.shape[1] / pixels.shape[2]
    left, top = column * (1 + GAP), row * (height + 3 * GAP)
    axes.imshow(image, extent=(left, left + 1, top + height, top), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    # white pixels at the edge would merge with the page
    axes.add_patch(Rectangle((left, top), 1, height, fill=False, edgecolor="#999999", linewidth=0.4))
    axes.text(left + 0.5, top - GAP / 3, caption, fontsize=8, color=color, ha="center", va="bottom")


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of tiles on the left; call it after all calls of `tile`."""
    tiles = [image.get_extent() for image in axes.images]
    first = sorted({(top, bottom) for _, _, bottom, top in tiles})
    for (top, bottom), name in zip(first, names, strict=True):
        axes.text(-GAP, (top + bottom) / 2, name, fontsize=9, color=GREY, rotation=90, ha="right", va="center")
    axes.set_xlim(0, max(right for _, right, _, _ in tiles))
    axes.set_ylim(max(bottom for _, _, bottom, _ in tiles), -2 * GAP)
    axes.set_axis_off()


def class_name(classes: Sequence[str], number: int) -> str:
    """The name of a predicted class; "no answer" for −1, which stands for a prediction without valid logits."""
    return classes[number] if number >= 0 else "no answer"


def label_answer(name: str, confidence: float) -> str:
    """A predicted class with its confidence, such as 'dog (97 %)'."""
    return f"{name} ({100 * confidence:.0f} %)"
