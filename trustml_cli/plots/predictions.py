"""Contact sheets of images with the answers of a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.style import ORANGE, as_picture, label_answer, new_figure

SPACE = 0.08  # between images, in image widths
ROOM = 0.42  # for the two lines above an image
LONGEST = 16  # characters of a name


@dataclass(frozen=True)
class Answered:
    """An image [C, H, W] with the answer, its outlier score, and the saliency of its pixels (same shape), if any."""

    name: str
    label: str
    confidence: float
    score: float
    unlike: bool
    pixels: Tensor
    saliency: Tensor | None


def contact_sheet(answers: Sequence[Answered], title: str, columns: int) -> Figure:
    """Each image with its file's name, answer and confidence, and its saliency beneath; orange where unlike."""
    columns = min(columns, len(answers))
    rows = -(-len(answers) // columns)
    _, height, width = answers[0].pixels.shape
    tall = height / width
    mapped = any(one.saliency is not None for one in answers)
    pitch = (2 * tall + SPACE if mapped else tall) + ROOM
    figure, axes = new_figure(1.25 * columns * (1 + SPACE) + 1.0, 1.25 * pitch * rows + 0.9)
    panel = axes[0, 0]
    for number, one in enumerate(answers):
        left, top = (number % columns) * (1 + SPACE), (number // columns) * pitch
        layers = [one.pixels] + ([] if one.saliency is None else [brightness(one.saliency)])
        for layer, pixels in enumerate(layers):
            upper = top + layer * (tall + SPACE)
            extent = (left, left + 1, upper + tall, upper)
            panel.imshow(as_picture(pixels), extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        remark = ", unlike" if one.unlike else ""
        text = f"{short(one.name)}\n{label_answer(short(one.label), one.confidence)}{remark}"
        color = ORANGE if one.unlike else "black"
        panel.text(left + 0.5, top - 0.04, text, fontsize=8, color=color, ha="center", va="bottom")
    panel.set_xlim(-SPACE, max(columns, 3) * (1 + SPACE))
    panel.set_ylim(rows * pitch - ROOM + SPACE, -ROOM)
    panel.set_axis_off()
    figure.suptitle(title, fontsize=11)
    beneath = "; beneath: saliency, bright where the answer depends on a pixel" if mapped else ""
    figure.supxlabel(f"orange: unlike the training images{beneath}", fontsize=8)
    return figure


def brightness(saliency: Tensor) -> Tensor:
    """A map [C, H, W] as a grey image [1, H, W] in [0, 1], the largest value of its channels white."""
    summed = saliency.float().abs().sum(0, keepdim=True)
    return summed / (summed.max() or 1.0)


def short(text: str) -> str:
    """A text without its middle if it is long: the beginning and the end of a file's name tell it from others."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[: half - 1]}…{text[-half:]}"
