"""Plot of images that are far apart in a norm and look the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.robustness import NORM_SYMBOLS
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, name_rows, new_figure, tile


@dataclass(frozen=True)
class Pair:
    """An image [C, H, W], its changed copy and the nearest image of another class, with distances in `norm`.

    The `distances` from the image are those of the copy and of the nearest; `answers` are the network's for the image
    and for the copy.
    """

    norm: str
    change: str
    images: tuple[Tensor, Tensor, Tensor]
    distances: tuple[float, float]
    answers: tuple[str, str]
    other_class: str


def pairs_by_norm(pairs: Sequence[Pair], subject: str) -> Figure:
    """One column per pair: the image, its changed copy, and the nearest image of another class, with distances."""
    figure, axes = new_figure(max(5.0, 0.5 + 1.45 * len(pairs)), 5.4)
    panel = axes[0, 0]
    for column, pair in enumerate(pairs):
        symbol, (own, nearest), (before, after) = NORM_SYMBOLS[pair.norm], pair.distances, pair.answers
        captions = (
            pair.change,
            f"{symbol} {own:.3g}, answer {after}",
            f"{symbol} {nearest:.3g}, class {pair.other_class}",
        )
        colors = (GREY, GREEN if before == after else ORANGE, BLUE)
        for row, (image, caption, color) in enumerate(zip(pair.images, captions, colors, strict=True)):
            tile(panel, row, column, image, caption, color)
    name_rows(panel, ["image", "looks the same", "nearest of\nanother class"])
    panel.set_title(f"{subject}: far apart in a norm, the same to the eye", fontsize=11)
    words = (
        "distances are from the image on top; green: the network's answer is the same for both, orange: it is another"
    )
    figure.supxlabel(words, fontsize=8)
    return figure
