"""How a scene looks from elsewhere: rotation, scale, place and brightness, drawn at random and differentiable.

A pattern that fools under all of them on average fools in the world (expectation over transformation: Athalye et al.
2018, arXiv 1707.07397).
"""

from dataclasses import dataclass, replace
from math import radians

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


@dataclass(frozen=True)
class Pose:
    """One view for each of n images: angle in degrees (anticlockwise), size and brightness as factors, all [n].

    `place` [n, 2] says how far to the right and down, each from −1 to 1, where 0 is where it is at rest.
    """

    angle: Tensor
    size: Tensor
    place: Tensor
    brightness: Tensor


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What poses are drawn from, uniformly: angles up to ±`rotation` degrees, sizes 1 ± `scale`.

    Places up to ±`place`, brightness 1 ± `brightness`. A range of 0 keeps things as they are.
    """

    rotation: float
    scale: float
    place: float
    brightness: float

    def __post_init__(self) -> None:
        for name, most in (("rotation", 180), ("scale", 0.9), ("place", 1), ("brightness", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: must be between 0 and {most:g}, got {getattr(self, name):g}")

    def draw(self, count: int, device: torch.device) -> Pose:
        """So many poses, from torch's global random numbers."""

        def around(width: float, *shape: int) -> Tensor:
            return width * (2 * torch.rand(count, *shape, device=device) - 1)

        return Pose(around(self.rotation), 1 + around(self.scale), around(self.place, 2), 1 + around(self.brightness))

    def only(self, name: str) -> "Ranges":
        """One range alone and nothing else."""
        return replace(self.nothing(), **{name: getattr(self, name)})

    @staticmethod
    def nothing() -> "Ranges":
        """Nothing changes."""
        return Ranges(rotation=0, scale=0, place=0, brightness=0)


def moved(images: Tensor, angle: Tensor, size: Tensor, shift: Tensor, to: tuple[int, int], border: bool) -> Tensor:
    """Images [n, C, h, w] turned, resized and laid on a canvas of height and width `to`.

    Their middle is `shift` [n, 2] pixels to the right of the canvas's and below it. Beyond the edge of an image comes
    its `border`, or else black. Bilinear: gradients reach the images.
    """
    height, width = to
    rows, columns = images.shape[2:]
    turn = angle * radians(1)
    cos, sin = turn.cos() / size, turn.sin() / size
    # from a place on the canvas back to one on the image: each in halves of its own size
    back = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    offset = -(back @ shift[:, :, None])
    own = torch.tensor([2 / columns, 2 / rows], device=images.device)[:, None]
    canvas = torch.tensor([width / 2, height / 2], device=images.device)
    theta = torch.cat([own * back * canvas, own * offset], 2)
    grid = affine_grid(theta, [len(images), images.shape[1], height, width], align_corners=False)
    return grid_sample(images, grid, padding_mode="border" if border else "zeros", align_corners=False)


def lit(images: Tensor, pose: Pose) -> Tensor:
    """Brighter or darker, clipped to [0, 1]."""
    return (images * pose.brightness.view(-1, 1, 1, 1)).clamp(0, 1)
