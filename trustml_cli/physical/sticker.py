"""Stickers on an object, in printable colours.

Eykholt et al. 2018, arXiv 1707.08945; the printability term is that of Sharif et al. 2016.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.data.image_file import Picture
from trustml_cli.physical.attack import PhysicalAttack
from trustml_cli.physical.transformations import Pose, lit, moved
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Sticker(PhysicalAttack):
    """Covers the object inside a mask; the pose transforms the object and the sticker together.

    The mask is the white and opaque area of the picture `mask`. If `mask` is None, it is two horizontal bars above and
    below the centre, each of height `bar` as a share of the image height. The penalty is `size_weight` times the L2
    norm of the change inside the mask plus `print_weight` times the non-printability score: the product of the
    distances of a value to all `printable` levels, summed over the mask. After training each value is rounded to the
    nearest level.

        sticker = Sticker(
            target=0, training_images=1000, steps=500, batch_size=64, lr=0.05, restarts=1, mask=None, bar=0.15,
            size_weight=0.01, print_weight=0.01, printable=[0.1, 0.5, 0.9], rotation=15,
            scale=0.1, place=0.1, brightness=0.2,
        )
        pattern = sticker.learn(model, own_x)
        x_worn = sticker.apply(x, pattern, sticker.ranges.draw(len(x), x.device))
    """

    mask: Picture | None
    bar: float
    size_weight: float
    print_weight: float
    printable: list[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "bar", above=0, at_most=0.3)
        require(self, "size_weight", "print_weight", at_least=0)
        if not self.printable or not all(0 <= level <= 1 for level in self.printable):
            raise ValueError(f"printable: must be levels between 0 and 1, got {self.printable}")

    def pattern_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not self.where(shape).any():
            raise ValueError("mask: is black everywhere; the sticker lies where it is white")
        return shape

    def where(self, shape: tuple[int, ...]) -> Tensor:
        _, height, width = shape
        if self.mask is None:
            return bars(height, width, self.bar)
        grey, opacity = self.mask.resized(1, height, width)
        white: Tensor = grey * opacity > 0.5
        return white.float()

    def apply(self, x: Tensor, pattern: Tensor | None, pose: Pose) -> Tensor:
        height, width = x.shape[2:]
        scene = x if pattern is None else torch.where(self.where(tuple(x.shape[1:])).to(x) > 0, pattern, x)
        # `pose.place` is a share of half the image size
        shift = pose.place * torch.tensor([width / 2, height / 2], device=x.device)
        return lit(moved(scene, pose.angle, pose.size, shift, (height, width), border=True), pose)

    def penalty(self, x: Tensor, pattern: Tensor) -> Tensor:
        mask = self.where(tuple(x.shape[1:])).to(x)
        size: Tensor = ((pattern - x) * mask).flatten(1).norm(dim=1).mean()
        return self.size_weight * size + self.print_weight * non_printability(pattern, mask, self.printable)

    def finished(self, pattern: Tensor) -> Tensor:
        levels = torch.tensor(self.printable, device=pattern.device)
        nearest: Tensor = levels[(pattern[..., None] - levels).abs().argmin(-1)]
        return nearest


def bars(height: int, width: int, share: float) -> Tensor:
    """A mask of two bars over 80 % of the width, at one third and two thirds of the height, [1, H, W]."""
    mask = torch.zeros(1, height, width)
    thick, margin = max(round(share * height), 1), width // 10
    for middle in (height / 3, 2 * height / 3):
        top = round(middle - thick / 2)
        mask[:, top : top + thick, margin : width - margin] = 1
    return mask


def non_printability(pattern: Tensor, mask: Tensor, printable: list[float]) -> Tensor:
    """The sum over the mask of Π |value − level|; 0 if every value is a printable level."""
    levels = torch.tensor(printable, device=pattern.device)
    distance: Tensor = (pattern[..., None] - levels).abs().prod(-1)
    return (distance * mask).sum()
