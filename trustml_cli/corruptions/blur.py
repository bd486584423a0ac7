"""Blur: defocus, frosted glass, motion and zoom (Hendrycks and Dietterich 2019, arXiv 1903.12261)."""

from dataclasses import dataclass
from itertools import product
from math import ceil

import torch
from torch import Tensor

from trustml_cli.corruptions.corruption import (
    Corruption,
    filtered,
    gaussian,
    gaussian_blurred,
    motion_blurred,
    pixels,
    uniform,
    zoomed,
)


@dataclass(frozen=True, kw_only=True)
class DefocusBlur(Corruption):
    """Averages over a disk of `radius` pixels, whose rim is softened by a Gaussian of deviation `softness`."""

    radius: list[float]
    softness: list[float]

    def corrupt(self, x: Tensor, *, radius: float, softness: float) -> Tensor:  # type: ignore[override]
        return filtered(x, disk(pixels(radius, x), pixels(softness, x)))


def disk(radius: float, softness: float) -> Tensor:
    """A disk of `radius` pixels under a Gaussian window of 3 pixels (5 above a radius of 8); of sum 1."""
    rim = 2 if radius > 8 else 1
    at = torch.arange(-ceil(radius) - rim, ceil(radius) + rim + 1)
    inside = (at[:, None].square() + at.square() <= radius**2).float()
    window = gaussian(softness, rim)
    kernel = torch.nn.functional.conv2d(
        (inside / inside.sum())[None, None], (window[:, None] * window)[None, None], padding=rim
    )
    return kernel[0, 0]


@dataclass(frozen=True, kw_only=True)
class GlassBlur(Corruption):
    """Swaps each pixel with a random one up to `distance` away, in `rounds`, between two blurs of `sigma` pixels.

    The authors' code copies the pixel where it means to swap it; this is the swap.
    """

    sigma: list[float]
    distance: list[float]
    rounds: list[int]

    def corrupt(self, x: Tensor, *, sigma: float, distance: float, rounds: int) -> Tensor:  # type: ignore[override]
        reach = min(max(1, round(pixels(distance, x))), (min(x.shape[2:]) - 1) // 2)
        blurred = gaussian_blurred(x, pixels(sigma, x))
        order = swapped(x, reach, rounds)[:, None].expand(-1, x.shape[1], -1)
        return gaussian_blurred(blurred.flatten(2).gather(2, order).view_as(x), pixels(sigma, x))


def swapped(x: Tensor, reach: int, rounds: int) -> Tensor:
    """For each image of x, a random order of its pixels in which each has moved a few times by up to `reach`."""
    count, _, height, width = x.shape
    order = torch.arange(height * width, device=x.device).repeat(count, 1)
    for _ in range(rounds):
        places = product(range(height - reach - 1, reach - 1, -1), range(width - reach - 1, reach - 1, -1))
        for row, column in places:
            down, right = torch.randint(-reach, reach + 1, (2, count, 1), device=x.device)
            here = row * width + column
            there = here + down * width + right
            mine, other = order[:, here : here + 1].clone(), order.gather(1, there)
            order[:, here : here + 1] = other
            order.scatter_(1, there, mine)
    return order


@dataclass(frozen=True, kw_only=True)
class MotionBlur(Corruption):
    """Moves the camera up to 2·`radius` pixels, with Gaussian weights of `sigma` pixels, at up to 45° to the right."""

    radius: list[float]
    sigma: list[float]

    def corrupt(self, x: Tensor, *, radius: float, sigma: float) -> Tensor:  # type: ignore[override]
        return motion_blurred(x, pixels(radius, x), pixels(sigma, x), uniform(-45, 45, len(x), x))


@dataclass(frozen=True, kw_only=True)
class ZoomBlur(Corruption):
    """Averages the image with itself enlarged in steps of a hundredth, up to the factor `zoom`."""

    zoom: list[float]

    def corrupt(self, x: Tensor, *, zoom: float) -> Tensor:  # type: ignore[override]
        factors = [1 + number / 100 for number in range(round(100 * (zoom - 1)) + 1)]
        return torch.stack([x, *(zoomed(x, factor) for factor in factors)]).mean(0)
