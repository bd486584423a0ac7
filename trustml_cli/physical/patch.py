"""The adversarial patch: a round pattern that is effective at any position in the image.

Brown, Mané, Roy, Abadi and Gilmer 2017, arXiv 1712.09665.
"""

from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor

from trustml_cli.physical.attack import PhysicalAttack
from trustml_cli.physical.transformations import Pose, lit, moved
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Patch(PhysicalAttack):
    """A disc that covers the share `area` of the image; the rest of the image changes only in brightness.

    The pose rotates, scales and translates the disc within the image; `place` is the largest shift as a share of the
    distance to the edges. Without a pose it is in the centre.

        patch = Patch(
            target=0, training_images=1000, steps=500, batch_size=64, lr=0.05, restarts=1, area=0.1,
            rotation=22.5, scale=0.2, place=1.0,
            brightness=0.2,
        )
        pattern = patch.learn(model, own_x)
        x_worn = patch.apply(x, pattern, patch.ranges.draw(len(x), x.device))
    """

    area: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "area", above=0, at_most=0.5)

    def pattern_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = shape
        most = pi / 4 * min(height, width) / max(height, width)  # of a disc that touches both longer edges
        if self.area > most:
            raise ValueError(f"area: must be at most {most:.3g} for images of {height}×{width}, got {self.area:g}")
        side = max(round(self.diameter(height, width)), 1)
        return channels, side, side

    def where(self, shape: tuple[int, ...]) -> Tensor:
        return disc(self.pattern_shape(shape)[-1])

    def diameter(self, height: int, width: int) -> float:
        """The diameter of the disc in pixels."""
        return 2 * sqrt(self.area * height * width / pi)

    def apply(self, x: Tensor, pattern: Tensor | None, pose: Pose) -> Tensor:
        if pattern is None:
            return lit(x, pose)
        n, _, height, width = x.shape
        radius = self.diameter(height, width) / 2
        # limit the shift so that the whole disc stays inside the image
        room = torch.tensor([width / 2, height / 2], device=x.device) - radius * pose.size[:, None]
        shift = pose.place * room.clamp(min=0)
        size = pose.size * (2 * radius / pattern.shape[-1])
        views = (pose.angle, size, shift, (height, width))
        colour = moved(pattern.expand(n, *pattern.shape[-3:]), *views, border=True)
        cover = moved(disc(pattern.shape[-1]).to(pattern)[None].expand(n, -1, -1, -1), *views, border=False)
        return lit(torch.where(cover > 0.5, colour, x), pose)  # hard mask: no blending at the rim

    def penalty(self, x: Tensor, pattern: Tensor) -> Tensor:
        return pattern.new_zeros(())


def disc(side: int) -> Tensor:
    """1 inside the largest circle of a square, 0 outside, [1, side, side]."""
    place = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    return (place[:, None].square() + place[None].square() <= 1).float()[None]
