"""Images shifted by whole pixels."""

from enum import Enum

from torch import Tensor, roll
from torch.nn import functional


class Fill(Enum):
    """What fills the pixels that a shift uncovers."""

    black = "black"
    edge = "edge"
    """The nearest pixel of the image."""
    circular = "circular"
    """The pixels that left the image on the other side."""


def shifted(x: Tensor, down: int, right: int, fill: Fill) -> Tensor:
    """Images x [N, C, H, W] shifted by `down` and `right` pixels (negative: up, left); of the same shape."""
    if fill is Fill.circular:
        return roll(x, (down, right), dims=(2, 3))
    padding = [max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)]
    padded = functional.pad(x, padding, mode="constant" if fill is Fill.black else "replicate")
    height, width = x.shape[2:]
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, :, top : top + height, left : left + width]


def offsets(distance: int) -> list[tuple[int, int]]:
    """All shifts (down, right) of at most `distance` pixels in each direction, row by row from the top left."""
    steps = range(-distance, distance + 1)
    return [(down, right) for down in steps for right in steps]
