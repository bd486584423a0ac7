"""A pattern blended into the whole image (Chen et al. 2017, arXiv 1712.05526)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.data.image_file import check_picture, read_picture
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Blend(Trigger):
    """(1 − `alpha`)·image + `alpha`·pattern, at every pixel.

    The pattern is the picture in the file `image`, resized to the images, or else uniform noise, drawn per value from
    `seed` and the same for every image. Applying it twice makes it stronger.

        triggered = Blend(alpha=0.2, image=None, seed=0)(images)
    """

    alpha: float
    image: Path | None
    seed: int

    def __post_init__(self) -> None:
        require(self, "alpha", above=0, at_most=1)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: must be at least 0 and below 2**63, got {self.seed}")
        if self.image is not None:
            check_picture(self.image)

    def mark(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        if self.image is not None:
            pattern = read_picture(self.image, *shape)
        else:
            pattern = torch.rand(shape, generator=torch.Generator().manual_seed(self.seed))
        return torch.full(shape, self.alpha), pattern
