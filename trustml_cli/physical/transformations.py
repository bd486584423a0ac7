"""Random differentiable transformations of a scene: rotation, scale, translation and brightness.

A pattern that is trained under random transformations stays effective in the physical world (expectation over
transformation: Athalye et al. 2018, arXiv 1707.07397).
"""

from dataclasses import dataclass, replace
from math import radians

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


@dataclass(frozen=True)
class Pose:
    """A transformation for each of n images: angle in degrees (anticlockwise), size and brightness as factors, all [n].

    `place` [n, 2] is the shift to the right and down, each from −1 to 1; 0 means no shift.
    """

    angle: Tensor
    size: Tensor
    place: Tensor
    brightness: Tensor


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The ranges of uniformly distributed poses: angles up to ±`rotation` degrees, size factors 1 ± `scale`.

    Shifts up to ±`place`, brightness factors 1 ± `brightness`. A range of 0 disables the transformation.
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
        """Draw `count` poses from torch's global random generator."""

        def around(width: float, *shape: int) -> Tensor:
            return width * (2 * torch.rand(count, *shape, device=device) - 1)

        return Pose(around(self.rotation), 1 + around(self.scale), around(self.place, 2), 1 + around(self.brightness))

    def only(self, name: str) -> "Ranges":
        """These ranges with all but the range `name` set to 0."""
        return replace(self.nothing(), **{name: getattr(self, name)})

    @staticmethod
    def nothing() -> "Ranges":
        """Ranges of 0: the identity transformation."""
        return Ranges(rotation=0, scale=0, place=0, brightness=0)


def moved(images: Tensor, angle: Tensor, size: Tensor, shift: Tensor, to: tuple[int, int], border: bool) -> Tensor:
    """Rotate and scale images [n, C, h, w] and place them on a canvas of height and width `to`.

    The image centre is shifted by `shift` [n, 2] pixels right and down from the canvas centre. Outside the image the
    canvas repeats the image border if `border`, and is black otherwise. Bilinear and differentiable.
    """
    height, width = to
    rows, columns = images.shape[2:]
    turn = angle * radians(1)
    cos, sin = turn.cos() / size, turn.sin() / size
    # affine_grid maps canvas coordinates to image coordinates, both normalised to [−1, 1]
    back = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    offset = -(back @ shift[:, :, None])
    own = torch.tensor([2 / columns, 2 / rows], device=images.device)[:, None]
    canvas = torch.tensor([width / 2, height / 2], device=images.device)
    theta = torch.cat([own * back * canvas, own * offset], 2)
    grid = affine_grid(theta, [len(images), images.shape[1], height, width], align_corners=False)
    return grid_sample(images, grid, padding_mode="border" if border else "zeros", align_corners=False)


def lit(images: Tensor, pose: Pose) -> Tensor:
    """Multiply images [n, C, H, W] by the brightness factors of `pose`, clipped to [0, 1]."""
    return (images * pose.brightness.view(-1, 1, 1, 1)).clamp(0, 1)
