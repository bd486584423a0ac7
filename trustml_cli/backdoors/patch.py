"""A small square in a corner (Gu et al. 2017, arXiv 1708.06733)."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from trustml_cli.backdoors.trigger import Overlay, check_color, painted
from trustml_cli.data.image_file import Picture
from trustml_cli.system.ranges import require


class Corner(Enum):
    """The corner of the image."""

    top_left = "top_left"
    top_right = "top_right"
    bottom_left = "bottom_left"
    bottom_right = "bottom_right"


@dataclass(frozen=True, kw_only=True)
class Patch(Overlay):
    """A square of `size` pixels on each side, `margin` pixels away from both edges of `corner`.

    It has the colour `color` (grey, or red, green and blue, in [0, 1]) or shows the picture `image`,
    resized, as opaque as it is.

        triggered = Patch(size=3, color=[1.0], image=None, corner=Corner.bottom_right, margin=0)(images)
    """

    size: int
    color: list[float]
    image: Picture | None
    corner: Corner
    margin: int

    def __post_init__(self) -> None:
        require(self, "size", at_least=1)
        require(self, "margin", at_least=0)
        check_color(self.color)

    def mark(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        channels, height, width = shape
        if self.size + self.margin > min(height, width):
            away = f" at a margin of {self.margin}" if self.margin else ""
            raise ValueError(
                f"size: a patch of {self.size}×{self.size}{away} does not fit on images of {width}×{height}"
            )
        top = self.margin if self.corner.value.startswith("top") else height - self.margin - self.size
        left = self.margin if self.corner.value.endswith("left") else width - self.margin - self.size
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        opacity, pattern = torch.zeros(shape), painted(self.color, shape)
        opacity[:, rows, columns] = 1
        if self.image is not None:
            pattern[:, rows, columns], opacity[:, rows, columns] = self.image.resized(channels, self.size, self.size)
        return opacity, pattern
