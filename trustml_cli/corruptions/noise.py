"""Noise: Gaussian, shot and impulse (Hendrycks and Dietterich 2019, arXiv 1903.12261)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.corruptions.corruption import Corruption


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Corruption):
    """Adds normal noise of deviation `std` (pixel units) to every value: bad light."""

    std: list[float]

    def corrupt(self, x: Tensor, *, std: float) -> Tensor:  # type: ignore[override]
        return x + std * torch.randn_like(x)


@dataclass(frozen=True, kw_only=True)
class ShotNoise(Corruption):
    """Draws every value from a Poisson distribution with a mean of `photons` where it is 1: few quanta of light."""

    divisors: ClassVar = ("photons",)

    photons: list[float]

    def corrupt(self, x: Tensor, *, photons: float) -> Tensor:  # type: ignore[override]
        return torch.poisson(x * photons) / photons


@dataclass(frozen=True, kw_only=True)
class ImpulseNoise(Corruption):
    """Replaces a `share` of all values by 0 or 1, equally likely: bit errors, salt and pepper."""

    share: list[float]

    def corrupt(self, x: Tensor, *, share: float) -> Tensor:  # type: ignore[override]
        chosen, salt = torch.rand_like(x) < share, torch.rand_like(x) < 0.5
        return torch.where(chosen, salt.to(x), x)
