"""Digital corruptions: contrast, elastic, pixelate and JPEG (Hendrycks and Dietterich 2019, arXiv 1903.12261)."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from trustml_cli.corruptions.corruption import Corruption, gaussian_blurred, pixels, sampled, uniform


@dataclass(frozen=True, kw_only=True)
class Contrast(Corruption):
    """Moves each channel's values towards its mean; a share `kept` of their distance is left."""

    kept: list[float]

    def corrupt(self, x: Tensor, *, kept: float) -> Tensor:  # type: ignore[override]
        mean = x.mean((2, 3), keepdim=True)
        return mean + kept * (x - mean)


@dataclass(frozen=True, kw_only=True)
class ElasticTransform(Corruption):
    """Moves each pixel by a random field, `amount` times uniform noise under a blur of `smoothness` pixels.

    Before, three points of the image move by up to `affine` pixels each, and the image with them.
    """

    amount: list[float]
    smoothness: list[float]
    affine: list[float]

    def corrupt(self, x: Tensor, *, amount: float, smoothness: float, affine: float) -> Tensor:  # type: ignore[override]
        x = affinely_moved(x, pixels(affine, x))
        noise = 2 * torch.rand(len(x), 2, *x.shape[2:], device=x.device) - 1
        field = pixels(amount, x) * gaussian_blurred(noise, pixels(smoothness, x))
        return sampled(x, field[:, 0], field[:, 1], "reflection")


def affinely_moved(x: Tensor, most: float) -> Tensor:
    """Images x [N, C, H, W] under random affine maps: three points around the middle move by up to `most`."""
    count, _, height, width = x.shape
    third = min(height, width) // 3
    points = torch.tensor([[third, third], [third, -third], [-third, -third]], dtype=x.dtype, device=x.device)
    moved = points + uniform(-most, most, count * 6, x).view(count, 3, 2)
    corners = torch.cat([moved, torch.ones(count, 3, 1, device=x.device)], 2)
    back = torch.linalg.solve(corners, points.expand(count, 3, 2))  # from places in the result to places in x
    rows = (torch.arange(height, device=x.device) - height // 2).view(1, -1, 1)
    columns = (torch.arange(width, device=x.device) - width // 2).view(1, 1, -1)
    down, right = (
        back[:, 0, axis].view(-1, 1, 1) * rows
        + back[:, 1, axis].view(-1, 1, 1) * columns
        + back[:, 2, axis].view(-1, 1, 1)
        for axis in (0, 1)
    )
    return sampled(x, down - rows, right - columns, "reflection")


@dataclass(frozen=True, kw_only=True)
class Pixelate(Corruption):
    """Reduces the image to a share `size` of its side by averaging, and enlarges it again by repeating pixels."""

    size: list[float]

    def corrupt(self, x: Tensor, *, size: float) -> Tensor:  # type: ignore[override]
        down, across = (averaging(length, max(1, int(length * size))).to(x) for length in x.shape[2:])
        return functional.interpolate(down @ x @ across.T, x.shape[2:], mode="nearest-exact")


def averaging(size: int, reduced: int) -> Tensor:
    """The matrix [reduced, size] that averages the pixels whose middle lies in each of `reduced` equal parts."""
    part = ((torch.arange(size) + 0.5) * reduced / size).long()
    matrix = functional.one_hot(part, reduced).T.float()
    return matrix / matrix.sum(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class JpegCompression(Corruption):
    """Writes the image as JPEG of this `quality` and reads it back; channels other than three are grey images."""

    quality: list[int]

    def corrupt(self, x: Tensor, *, quality: int) -> Tensor:  # type: ignore[override]
        coloured = x if x.shape[1] == 3 else x.flatten(0, 1)[:, None]
        arrays = (255 * coloured).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).squeeze(3).numpy()
        read = torch.stack([torch.from_numpy(as_jpeg(one, quality)) for one in arrays])
        return (
            (read.to(x) / 255).view(*coloured.shape[:1], *coloured.shape[2:], -1).permute(0, 3, 1, 2).reshape(x.shape)
        )


def as_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """An image [H, W, 3] or [H, W], written as JPEG and read back."""
    written = BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=quality)
    return np.array(Image.open(written))
