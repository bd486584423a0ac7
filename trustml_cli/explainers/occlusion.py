"""Occlusion: the decrease of the logit when a window of the image is covered.

Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, Unsuitable, logit_of
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Occlusion(Explainer):
    """Each pixel's mean of F(x) − F(x with a window covered), over the windows that contain it; in logits.

    Square windows of `window` pixels, `stride` apart, cover all channels; the last ones are cut at the border.
    `baseline` is the grey value of the default cover, in [0, 1]. The rest of the image remains visible while a window
    is covered, so the contributions do not add up to F(x) − F(baseline): a large completeness gap is inherent to the
    method.
    """

    gradients: ClassVar = False

    window: int
    stride: int
    baseline: float

    def __post_init__(self) -> None:
        require(self, "window", at_least=1)
        if not 1 <= self.stride <= self.window:
            raise ValueError(f"stride: must be between 1 and the window of {self.window}, got {self.stride}")
        require(self, "baseline", at_least=0, at_most=1)

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        if len(shape) != 3:
            raise Unsuitable("needs images")
        if self.window > min(shape[1:]):
            raise ValueError(f"window: must be at most {min(shape[1:])} for these images, got {self.window}")

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return self.contributions(model, x, target, torch.full_like(x, self.baseline))

    @torch.no_grad()
    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        whole = logit_of(model, x, target)
        total, windows = torch.zeros_like(x), torch.zeros_like(x)
        for top in self.places(x.shape[2]):
            for left in self.places(x.shape[3]):
                rows, columns = slice(top, top + self.window), slice(left, left + self.window)
                covered = x.clone()
                covered[:, :, rows, columns] = baseline[:, :, rows, columns]
                total[:, :, rows, columns] += (whole - logit_of(model, covered, target)).view(-1, 1, 1, 1)
                windows[:, :, rows, columns] += 1
        return total / windows

    def places(self, side: int) -> range:
        """Offsets of the windows along a side of `side` pixels, such that they cover all of it."""
        return range(0, -(-(side - self.window) // self.stride) * self.stride + 1, self.stride)
