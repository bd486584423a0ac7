"""Changes of an image that are large in a norm and small to the eye, and distances between images.

Small perturbations in a norm and small ones to the eye are different sets (Sharif, Bauer and Reiter 2018, On the
suitability of Lp-norms for creating and preventing adversarial examples, arXiv 1802.09653).
"""

import torch
from torch import Tensor

from trustml_cli.corruptions.shift import Fill, shifted

GREY_LEVEL = 1 / 255  # the smallest step of an 8-bit image


def every_value(x: Tensor) -> Tensor:
    """Images x (values in [0, 1]) with every value one grey level brighter, or darker where it is above a half."""
    return torch.where(x > 0.5, x - GREY_LEVEL, x + GREY_LEVEL)


def brighter(x: Tensor, step: float) -> Tensor:
    """Images x [N, C, H, W] with `step` added to every value, at most 1."""
    return (x + step).clamp(max=1)


def moved(x: Tensor, pixels: int) -> Tensor:
    """Images x [N, C, H, W] moved to the right by `pixels`; the nearest pixel fills what this uncovers."""
    return shifted(x, 0, pixels, Fill.edge)


def one_pixel(x: Tensor) -> Tensor:
    """Images x [N, C, H, W] with the bottom right pixel at the other end of the range: 1, or 0 above a half."""
    changed = x.clone()
    changed[:, :, -1, -1] = (x[:, :, -1, -1] <= 0.5).to(x)
    return changed


def distances(x: Tensor, others: Tensor, norm: str) -> Tensor:
    """The distance of each image x [N, …] from each of `others` [M, …] in `norm` (l0, l1, l2, linf), [N, M]."""
    a, b = x.flatten(1), others.flatten(1)
    if norm == "l0":
        return torch.stack([(one != b).sum(1).to(x) for one in a])
    return torch.cdist(a, b, p={"l1": 1.0, "l2": 2.0, "linf": torch.inf}[norm])
