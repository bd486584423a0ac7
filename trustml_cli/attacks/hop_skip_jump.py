"""HopSkipJump: the direction of the boundary from decisions alone.

Chen, Jordan and Wainwright 2020, arXiv 1904.02144.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm, per_image
from trustml_cli.attacks.decision import DecisionBased, Oracle, halvings
from trustml_cli.attacks.geometry import normalised
from trustml_cli.attacks.smallest import Nearest
from trustml_cli.system.ranges import require

FIRST_RADIUS = 0.1  # of the sphere around the first boundary point, from which the direction is estimated
SHORTER = 15  # halvings of a step, at most
MOST = 10_000  # evaluations for one direction, at most
FEWEST = 5  # evaluations for one direction, at least: with less left it ends
TOGETHER = 512  # images in one forward pass


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(DecisionBased):
    """Bisects to the boundary, estimates its normal, steps along it, and bisects again, until the queries are spent.

    At the t-th boundary point, `evaluations`·√t random points on a small sphere around it are asked about; their
    directions, weighted by ±1 for another or the same class, less the mean weight, add up to the normal. The step has a
    length of the distance over √t, and is halved until it ends in another class.

        attack = HopSkipJump(norm=Norm.l2, target=None, queries=5000, evaluations=100)
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    evaluations: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "evaluations", at_least=FEWEST)

    def walk(self, wrong: Oracle, x: Tensor, nearest: Nearest, queries: int) -> None:
        values = x[0].numel()
        theta = values**-1.5 if self.norm is Norm.l2 else values**-2.0
        steps = min(halvings(theta), max(queries, 0))
        x_adv = self.bisect(wrong, x, nearest.images, steps)
        left, turn = queries - steps, 0
        everywhere = torch.ones_like(wrong.y, dtype=torch.bool)
        while True:
            size = self.size(x_adv - x)
            nearest.note(x_adv, everywhere, size)
            turn += 1
            count = min(int(self.evaluations * sqrt(turn)), MOST, left - steps - SHORTER)
            if count < FEWEST:
                return
            wider = sqrt(values) if self.norm is Norm.l2 else values
            radius = torch.full_like(size, FIRST_RADIUS) if turn == 1 else wider * theta * size
            uphill = self.normal(wrong, x_adv, radius.clamp(min=1e-6), count)
            direction = uphill if self.norm is Norm.l2 else uphill.sign()
            stepped = self.step(wrong, x_adv, direction, size / sqrt(turn))
            x_adv = self.bisect(wrong, x, stepped, steps)
            left -= count + steps + SHORTER

    def normal(self, wrong: Oracle, x_adv: Tensor, radius: Tensor, count: int) -> Tensor:
        """The direction of the other classes at boundary points x_adv, of length 1, by `count` queries for each."""
        total, weighted, balance = torch.zeros_like(x_adv), torch.zeros_like(x_adv), torch.zeros_like(radius)
        each = max(TOGETHER // len(x_adv), 1)
        for first in range(0, count, each):
            shape = (min(each, count - first), *x_adv.shape)
            drawn = torch.randn(shape, device=x_adv.device, dtype=x_adv.dtype)
            if self.norm is Norm.linf:
                drawn = 2 * torch.rand(shape, device=x_adv.device, dtype=x_adv.dtype) - 1
            drawn = normalised(drawn.flatten(0, 1)).view(shape)
            around = (x_adv + per_image(radius, x_adv) * drawn).clamp(0, 1)
            sign = wrong(around.flatten(0, 1)).to(x_adv.dtype).view(shape[:2]) * 2 - 1
            moved = (around - x_adv) / per_image(radius, x_adv)
            total, balance = total + moved.sum(0), balance + sign.sum(0)
            weighted = weighted + (sign.view(*shape[:2], *(1,) * (x_adv.dim() - 1)) * moved).sum(0)
        mean = (balance / count).where(balance.abs() < count, 0.0)  # where all are alike there is no mean to subtract
        return normalised(weighted - per_image(mean, x_adv) * total)

    def step(self, wrong: Oracle, x_adv: Tensor, direction: Tensor, size: Tensor) -> Tensor:
        """Step by `size` [N] along `direction`, halved until the class is another; x_adv where none is found."""
        found, rows = x_adv.clone(), torch.arange(len(x_adv), device=x_adv.device)
        for _ in range(SHORTER):
            ahead = (x_adv[rows] + per_image(size[rows], x_adv) * direction[rows]).clamp(0, 1)
            reached = wrong.of(rows)(ahead)
            found[rows[reached]] = ahead[reached]
            rows = rows[~reached]
            if not len(rows):
                break
            size = size / 2
        return found
