"""Views of an image that a membership inference attack asks about: the image, mirrored, and shifted by a pixel."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
MOST = 2 * len(SHIFTS)


def views(x: Tensor, count: int) -> Iterator[Tensor]:
    """The first `count` views of images x [N, C, H, W], up to `MOST`: as they are, mirrored, then shifted ones.

    Shifted images repeat their edge. A first view of anything else than images is x itself.
    """
    yield x
    for number in range(1, count):
        down, right = SHIFTS[number // 2]
        shifted = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        shifted = torch.roll(shifted, (down, right), dims=(2, 3))[:, :, 1:-1, 1:-1]
        yield shifted.flip(-1) if number % 2 else shifted
