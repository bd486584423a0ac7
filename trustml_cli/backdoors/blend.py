"""A pattern blended into the whole image (Chen et al. 2017, arXiv 1712.05526)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.backdoors.trigger import Overlay
from trustml_cli.data.image_file import Picture
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Blend(Overlay):
    """(1 − `alpha`)·image + `alpha`·pattern, at every pixel.

    The pattern is the picture `image`, resized to the images, or else uniform noise, drawn per value from `seed` and
    the same for every image. The picture's own opacity is a factor of `alpha`. Applying it twice makes it stronger.

        triggered = Blend(alpha=0.2, image=None, seed=0)(images)
    """

    alpha: float
    image: Picture | None
    seed: int

    def __post_init__(self) -> None:
        require(self, "alpha", above=0, at_most=1)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: must be at least 0 and below 2**63, got {self.seed}")

    def mark(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        if self.image is None:
            pattern = torch.rand(shape, generator=torch.Generator().manual_seed(self.seed))
            return torch.full(shape, self.alpha), pattern
        channels, height, width = shape
        pattern, opacity = self.image.resized(channels, height, width)
        return (self.alpha * opacity).expand(shape), pattern
