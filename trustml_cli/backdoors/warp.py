"""A smooth warp of the image (WaNet; Nguyen and Tran 2021, arXiv 2102.10369)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.backdoors.trigger import ImageTrigger
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Warp(ImageTrigger):
    """Moves pixels along a smooth field of offsets, the same for every image.

    The offsets of `grid` × `grid` control points are uniform in [−1, 1], drawn from `seed`, divided by their mean
    absolute value, enlarged by bicubic interpolation, and multiplied by `strength` / height; an offset of 2 is the
    height or width of the image. Images are sampled bilinearly. The paper's noise mode, images with another random warp
    and their own label, is not part of it.
    """

    grid: int
    strength: float
    seed: int

    def __post_init__(self) -> None:
        require(self, "grid", at_least=2)
        require(self, "strength", above=0)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: must be at least 0 and below 2**63, got {self.seed}")

    def change(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if not len(images):
            return images
        control = 2 * torch.rand(1, 2, self.grid, self.grid, generator=torch.Generator().manual_seed(self.seed)) - 1
        offsets = functional.interpolate(control / control.abs().mean(), (height, width), mode="bicubic",
                                         align_corners=True)[0]  # fmt: skip
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        places = torch.stack([columns, rows], dim=-1) + offsets.permute(1, 2, 0) * self.strength / height
        places = places.clamp(-1, 1).to(images).expand(len(images), -1, -1, -1)
        return functional.grid_sample(images, places, align_corners=True)
