"""Images of random pixels: what no classifier knows, as outliers."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.system.files import digest
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Noise(DatasetSource):
    """`images` images of random pixels in each split, drawn with a fixed seed, as far outliers.

    Two classes, one half each (Liang, Li and Srikant 2018, arXiv 1706.02690): `uniform` in [0, 1], and `gaussian` with
    mean 0.5 and standard deviation 1, clipped to [0, 1]. As outliers they have the shape of the images that the model
    is trained on.
    """

    channels: int
    height: int
    width: int
    images: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "channels", "height", "width", at_least=1)
        require(self, "images", at_least=2)

    def like(self, shape: tuple[int, ...]) -> "Noise":
        channels, height, width = shape
        return replace(self, channels=channels, height=height, width=width)

    def read(self, cache_dir: Path) -> Dataset:
        random = torch.Generator().manual_seed(0)
        labels = torch.arange(self.images) % 2

        def split() -> InMemory:
            shape = (self.images, self.channels, self.height, self.width)
            uniform = torch.rand(shape, generator=random)
            gaussian = (0.5 + torch.randn(shape, generator=random)).clamp(0, 1)
            pixels = torch.where(labels.view(-1, 1, 1, 1) == 0, uniform, gaussian)
            return InMemory(pixels.mul(255).round().to(torch.uint8), labels)

        facts = [self.channels, self.height, self.width, self.images]
        return Dataset(
            train=split(),
            test=split(),
            classes=("uniform", "gaussian"),
            fingerprint=digest(["noise", *facts]),
            source="random pixels",
        )
