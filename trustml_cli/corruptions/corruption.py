"""The base class of common corruptions, and what several of them are made of.

Hendrycks and Dietterich 2019, Benchmarking neural network robustness to common corruptions and perturbations, arXiv
1903.12261. The images are random for each call, and drawn independently for each image, from torch's global generator.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil, pi
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

REFERENCE = 32  # pixels of the images whose strengths the paper publishes for CIFAR-10-C


@dataclass(frozen=True, kw_only=True)
class Corruption(ABC):
    """Corrupts images in several strengths. Subclasses declare their keys as fields: lists with a value per strength.

    Lengths are in pixels of images of 32×32; they grow with the shorter side of the image.
    """

    divisors: ClassVar[tuple[str, ...]] = ()
    """The keys by which something is divided: their values must be above 0, others at least 0."""

    def __post_init__(self) -> None:
        counts = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        for name, count in counts.items():
            if not count or count != max(counts.values()):
                raise ValueError(f"{name}: needs a value for each of {max(counts.values())} strengths, got {count}")
            values, above = getattr(self, name), name in self.divisors
            if any(not 0 <= value < torch.inf or (above and value == 0) for value in values):
                raise ValueError(f"{name}: must be numbers {'above' if above else 'of at least'} 0, got {values}")

    @property
    def strengths(self) -> int:
        """The number of strengths."""
        return len(getattr(self, fields(self)[0].name))

    def __call__(self, x: Tensor, severity: int) -> Tensor:
        """Images x [N, C, H, W] in [0, 1], corrupted in strength `severity` (from 1), in [0, 1]."""
        values = {field.name: getattr(self, field.name)[severity - 1] for field in fields(self)}
        return self.corrupt(x, **values).clamp(0, 1)

    @abstractmethod
    def corrupt(self, x: Tensor, **values: float) -> Tensor:
        """The corrupted images, before they are clipped, with the values of the keys at one strength."""


def check_severity(corruptions: Mapping[str, Corruption], severity: list[int]) -> None:
    """Raise ValueError where one of these corruptions has no such strength."""
    for name, one in corruptions.items():
        if severity and max(severity) > one.strengths:
            raise ValueError(f"severity: {name} has {one.strengths} strengths, got {max(severity)}")


def pixels(length: float, x: Tensor) -> float:
    """A length of images of 32×32, in pixels of the images x."""
    return length * min(x.shape[2:]) / REFERENCE


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of x [N, C, H, W], correlated with `kernel` [k, l] (both odd); pixels outside repeat the edge."""
    height, width = kernel.shape
    padded = functional.pad(x, (width // 2, width // 2, height // 2, height // 2), "replicate")
    return functional.conv2d(padded, kernel.to(x).expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def gaussian(sigma: float, radius: int | None = None) -> Tensor:
    """A Gaussian window [2·radius + 1] of sum 1, in pixels; by default up to four deviations."""
    radius = ceil(4 * sigma) if radius is None else radius
    at = torch.arange(-radius, radius + 1)
    window = torch.exp(-at.square() / (2 * max(sigma, 1e-6) ** 2))
    return window / window.sum()


def gaussian_blurred(x: Tensor, sigma: float) -> Tensor:
    """Images x [N, C, H, W] under a Gaussian filter of deviation `sigma` pixels."""
    window = gaussian(sigma)
    return filtered(filtered(x, window[None]), window[:, None])


def sampled(x: Tensor, down: Tensor, right: Tensor, padding: str = "border") -> Tensor:
    """Images x [N, C, H, W] at each pixel's place moved by `down` and `right` (pixels, [N, H, W] or 1), bilinear."""
    count, _, height, width = x.shape
    rows = torch.arange(height, device=x.device).view(1, -1, 1) + down
    columns = torch.arange(width, device=x.device).view(1, 1, -1) + right
    shape = (count, height, width)
    grid = [(2 * at + 1) / size - 1 for at, size in ((columns.expand(shape), width), (rows.expand(shape), height))]
    return functional.grid_sample(x, torch.stack(grid, 3), padding_mode=padding, align_corners=False)


def zoomed(x: Tensor, factor: float) -> Tensor:
    """Images x [N, C, H, W] enlarged by `factor` (at least 1) around its middle, cut to its size."""
    rows, columns = ((torch.arange(size, device=x.device) - (size - 1) / 2) * (1 / factor - 1) for size in x.shape[2:])
    return sampled(x, rows.view(1, -1, 1), columns.view(1, 1, -1))


def motion_blurred(x: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """Images x [N, C, H, W] moved up to 2·`radius` pixels along `degrees` [N], with Gaussian weights.

    The weight of a place is that of a Gaussian with deviation `sigma` pixels at its distance from the start.
    """
    steps = min(round(2 * radius), ceil(4 * sigma)) + 1
    weights = gaussian(sigma, steps)[steps:]
    weights = weights / weights.sum()
    angle = (degrees * pi / 180).view(-1, 1, 1)
    moved = (
        weight * sampled(x, step * angle.sin(), step * angle.cos()) for step, weight in enumerate(weights.tolist())
    )
    return torch.stack(list(moved)).sum(0)


def uniform(low: float, high: float, count: int, x: Tensor) -> Tensor:
    """`count` random numbers between `low` and `high`, on the device of x."""
    return low + (high - low) * torch.rand(count, device=x.device)


def grey(x: Tensor) -> Tensor:
    """The luma of x [N, C, H, W], [N, 1, H, W]; the mean over the channels where there are not three."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * torch.tensor([0.299, 0.587, 0.114]).to(x).view(1, 3, 1, 1)).sum(1, keepdim=True)


def plasma(x: Tensor, decay: float) -> Tensor:
    """A random fractal for each image of x [N, C, H, W], between 0 and 1: [N, 1, H, W] (diamond-square algorithm).

    The random part falls by `decay` from each scale to the next finer one; a small decay is rough. A single pixel is 0.
    """
    size = 2
    while size < max(x.shape[2:]):
        size *= 2
    field = torch.zeros(len(x), size, size, device=x.device)
    step, wobble = size, 1.0
    while step >= 2:
        half = step // 2

        def noisy(total: Tensor, wobble: float = wobble) -> Tensor:
            return total / 4 + wobble * (2 * torch.rand_like(total) - 1)

        corners = field[:, ::step, ::step]
        right = corners + corners.roll(-1, 1)
        field[:, half::step, half::step] = noisy(right + right.roll(-1, 2))
        middles, corners = field[:, half::step, half::step], field[:, ::step, ::step]
        field[:, ::step, half::step] = noisy(middles + middles.roll(1, 1) + corners + corners.roll(-1, 2))
        field[:, half::step, ::step] = noisy(middles + middles.roll(1, 2) + corners + corners.roll(-1, 1))
        step, wobble = half, wobble / decay
    field = field[:, : x.shape[2], : x.shape[3]]
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return ((field - low) / (high - low).clamp(min=torch.finfo(field.dtype).tiny))[:, None]
