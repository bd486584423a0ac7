"""Fast minimum-norm attack: gradient steps in a ball whose radius follows the decision boundary.

Pintor, Roli, Brendel and Biggio 2021, arXiv 2102.12827.
"""

from dataclasses import dataclass
from functools import partial
from math import cos, inf, pi
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import lengths, normalised, project
from trustml_cli.attacks.losses import logit_margin, loss_gradient, rounding
from trustml_cli.attacks.smallest import Nearest, SmallestPerturbation
from trustml_cli.system.ranges import require

LAST = 0.01  # the last step size as a share of the first
LAST_RATE = 0.001  # the last relative change of the radius
ORDER = {Norm.linf: inf, Norm.l2: 2.0, Norm.l1: 1.0}
DUAL = {Norm.linf: 1.0, Norm.l2: 2.0, Norm.l1: inf}


@dataclass(frozen=True, kw_only=True)
class FMN(SmallestPerturbation):
    """Ascends the margin of the goal by steps of length `step_size` (L2), and projects into a ball of changing radius.

    Until an image first reaches the goal, the radius is its present distance plus that of the linearised boundary, at
    least the last radius, and the share `rate` more: the paper's radius, without the last two, may end short of a
    curved boundary. After that the radius shrinks by the share `rate` while the goal is reached, and grows by it
    otherwise. In L0 it starts at one value and changes by at least one. Step size and rate fall over `steps` steps by
    half a cosine. The nearest image that reached the goal is returned.

        attack = FMN(norm=Norm.l2, target=None, steps=100, step_size=1.0, rate=0.05)
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2, Norm.linf, Norm.l1, Norm.l0)

    steps: int
    step_size: float
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "steps", at_least=1)
        require(self, "step_size", above=0)
        require(self, "rate", above=0, below=1)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.for_standing(self.search, model, x, y)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest images that reach the goal; x where none was found."""
        nearest, x_adv = Nearest.none(x), x
        farthest = self.size(torch.maximum(x, 1 - x))
        radius = torch.full_like(farthest, float(self.norm is Norm.l0))
        for step in range(self.steps):
            falling = (1 + cos(pi * step / self.steps)) / 2
            rate = LAST_RATE + (self.rate - LAST_RATE) * falling
            logits, margin, slope = loss_gradient(model, x_adv, partial(logit_margin, y=y, target=target))
            size = self.size(x_adv - x)
            reached = margin > rounding(logits)
            nearest.note(x_adv, reached, size)
            if self.norm is Norm.l0:
                radius = self.count(radius, reached, nearest.size, rate)
            else:
                steep = lengths(slope, DUAL[self.norm])
                linear = (size + margin.abs() / steep).where((steep > 0) & nearest.size.isinf(), 0.0)
                outside = (1 + rate) * radius.maximum(linear)
                radius = torch.where(reached, (radius * (1 - rate)).minimum(nearest.size), outside)
            radius = radius.minimum(farthest)
            length = self.step_size * (LAST + (1 - LAST) * falling)
            x_adv = project(x_adv + length * normalised(slope), x, radius, self.norm)
        return nearest.images

    def count(self, radius: Tensor, reached: Tensor, smallest: Tensor, rate: float) -> Tensor:
        """The next radius in L0: a whole number of values, at least 1."""
        fewer = torch.minimum(radius - 1, (radius * (1 - rate)).floor()).minimum(smallest)
        more = torch.maximum(radius + 1, (radius * (1 + rate)).floor())
        return torch.where(reached, fewer, more).clamp(min=1)

    def size(self, change: Tensor) -> Tensor:
        """The size of perturbations [N, …] in the attack's norm, [N]."""
        if self.norm is Norm.l0:
            return (change != 0).flatten(1).sum(1).to(change.dtype)
        return lengths(change, ORDER[self.norm])
