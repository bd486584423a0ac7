"""Weather: snow, frost, fog and brightness (Hendrycks and Dietterich 2019, arXiv 1903.12261)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.corruptions.corruption import Corruption, grey, motion_blurred, pixels, plasma, uniform, zoomed

ICE = (0.85, 0.93, 1.0)  # red, green and blue of frost


@dataclass(frozen=True, kw_only=True)
class Snow(Corruption):
    """Whitens the image, keeping a share `kept` of it, and adds flakes that fall.

    Flakes are normal noise of `mean` and `std`, enlarged by `size`; what is below `threshold` is none. They are blurred
    by motion up to 2·`radius` pixels with deviation `sigma`.
    """

    mean: list[float]
    std: list[float]
    size: list[float]
    threshold: list[float]
    radius: list[float]
    sigma: list[float]
    kept: list[float]

    def corrupt(  # type: ignore[override]
        self,
        x: Tensor,
        *,
        mean: float,
        std: float,
        size: float,
        threshold: float,
        radius: float,
        sigma: float,
        kept: float,
    ) -> Tensor:
        flakes = zoomed(mean + std * torch.randn_like(x[:, :1]), max(1.0, pixels(size, x)))
        flakes = flakes.where(flakes >= threshold, 0.0).clamp(0, 1)
        flakes = motion_blurred(flakes, pixels(radius, x), pixels(sigma, x), uniform(-135, -45, len(x), x))
        whitened = kept * x + (1 - kept) * torch.maximum(x, 1.5 * grey(x) + 0.5)
        return whitened + flakes + flakes.flip(2, 3)


@dataclass(frozen=True, kw_only=True)
class Frost(Corruption):
    """Dims the image to a share `kept` and adds `frost` times the pattern of ice.

    The authors add photographs of frozen windows. Here it is the ridges of a fractal, white with a little blue: figures
    are to be compared with theirs only roughly.
    """

    kept: list[float]
    frost: list[float]

    def corrupt(self, x: Tensor, *, kept: float, frost: float) -> Tensor:  # type: ignore[override]
        ridges = (1 - (2 * plasma(x, 1.6) - 1).abs()).square()
        color = torch.tensor(ICE).to(x).view(1, 3, 1, 1) if x.shape[1] == 3 else 1.0
        return kept * x + frost * ridges * color


@dataclass(frozen=True, kw_only=True)
class Fog(Corruption):
    """Adds `density` times a fractal whose finer scales fall by `decay`, and keeps the brightest value as it was."""

    divisors: ClassVar = ("density", "decay")

    density: list[float]
    decay: list[float]

    def corrupt(self, x: Tensor, *, density: float, decay: float) -> Tensor:  # type: ignore[override]
        brightest = x.amax((1, 2, 3), keepdim=True)
        return (x + density * plasma(x, decay)) * brightest / (brightest + density)


@dataclass(frozen=True, kw_only=True)
class Brightness(Corruption):
    """Adds `value` to the value (the largest of red, green and blue) of each colour; hue and saturation stay."""

    value: list[float]

    def corrupt(self, x: Tensor, *, value: float) -> Tensor:  # type: ignore[override]
        before = x.amax(1, keepdim=True)
        after = (before + value).clamp(max=1)
        return torch.where(before > 0, x * after / before.clamp(min=1e-9), after)
