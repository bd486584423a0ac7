"""A sinusoidal signal over the columns of the image (SIG; Barni, Kallas and Tondi 2019, arXiv 1902.11237)."""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from trustml_cli.backdoors.trigger import ImageTrigger
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Sinusoidal(ImageTrigger):
    """image + `amplitude`·sin(2π·column·`frequency`/width), in pixel units, the same in every row and channel.

    triggered = Sinusoidal(amplitude=20 / 255, frequency=6)(images)
    """

    amplitude: float
    frequency: float

    def __post_init__(self) -> None:
        require(self, "amplitude", above=0, at_most=1)
        require(self, "frequency", above=0)

    def change(self, images: Tensor) -> Tensor:
        width = images.shape[3]
        columns = torch.arange(width, device=images.device)
        return images + self.amplitude * (2 * pi * columns * self.frequency / width).sin()

    def check(self, shape: tuple[int, ...]) -> None:
        if self.frequency >= shape[2] / 2:  # the signal would be aliased, and at half the width zero everywhere
            raise ValueError(f"frequency: must be below half the width, {shape[2] / 2:g}, got {self.frequency:g}")
