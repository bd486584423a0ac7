"""Decoupled direction and norm: the smallest L2 perturbation on a sphere whose radius shrinks and grows.

Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger 2019, arXiv 1811.09600.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm, per_image
from trustml_cli.attacks.geometry import lengths, normalised
from trustml_cli.attacks.losses import Loss, clear_margin, loss_gradient, per_image_loss
from trustml_cli.attacks.smallest import Nearest, SmallestPerturbation
from trustml_cli.system.ranges import require

LAST = 0.01  # the last step size as a share of the first


@dataclass(frozen=True, kw_only=True)
class DDN(SmallestPerturbation):
    """Steps of the cross-entropy's gradient, each followed by a projection onto a sphere around the image.

    The radius starts at `start_radius`. It shrinks by the share `rate` after a step that reaches the goal, and grows by
    it after any other. The step has length `step_size`, falling over `steps` steps by half a cosine. The nearest image
    that reached the goal is returned.

        attack = DDN(norm=Norm.l2, target=None, steps=100, step_size=1.0, start_radius=1.0, rate=0.05)
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2,)

    steps: int
    step_size: float
    start_radius: float
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "steps", at_least=1)
        require(self, "step_size", "start_radius", above=0)
        require(self, "rate", above=0, below=1)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.for_standing(self.search, model, x, y)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest images that reach the goal; x where none was found."""
        nearest, x_adv = Nearest.none(x), x
        farthest = lengths(torch.maximum(x, 1 - x))
        radius = torch.full_like(farthest, self.start_radius)
        loss = per_image_loss(Loss.ce, y, target, above_all=True)
        for step in range(self.steps):
            logits, _, slope = loss_gradient(model, x_adv, loss)
            reached = clear_margin(logits, y, target) > 0
            nearest.note(x_adv, reached, lengths(x_adv - x))
            length = self.step_size * (LAST + (1 - LAST) * (1 + cos(pi * step / self.steps)) / 2)
            radius = torch.where(reached, (1 - self.rate) * radius, (1 + self.rate) * radius).minimum(farthest)
            change = normalised(x_adv - x + length * normalised(slope))
            x_adv = (x + per_image(radius, x) * change).clamp(0, 1)
        return nearest.images
