"""Single pixels (Gu et al. 2017, arXiv 1708.06733)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.backdoors.trigger import Overlay, check_color, painted


@dataclass(frozen=True, kw_only=True)
class Pixel(Overlay):
    """The pixels at (`row`, `column`), one or as many as the two lists hold, set to `color`.

    Rows count from the top, columns from the left, both from 0; negative ones from the bottom and from the right, as
    in numpy. `color` is grey, or red, green and blue, in [0, 1].

        triggered = Pixel(row=[-2], column=[-2], color=[1.0])(images)
    """

    row: list[int]
    column: list[int]
    color: list[float]

    def __post_init__(self) -> None:
        if not self.row or len(self.row) != len(self.column):
            raise ValueError(f"row: needs one for each column, got {len(self.row)} and {len(self.column)} columns")
        check_color(self.color)

    def mark(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        for name, places, length in (("row", self.row, shape[1]), ("column", self.column, shape[2])):
            for place in places:
                if not -length <= place < length:
                    raise ValueError(f"{name}: must be between {-length} and {length - 1} on these images, got {place}")
        opacity = torch.zeros(shape)
        opacity[:, self.row, self.column] = 1
        return opacity, painted(self.color, shape)
