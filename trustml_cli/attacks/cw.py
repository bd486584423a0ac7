"""Carlini and Wagner's L2 attack: the smallest perturbation, by descent in a space without bounds.

Carlini and Wagner 2017, arXiv 1608.04644.
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.losses import clear_lead, lead
from trustml_cli.attacks.smallest import SmallestPerturbation

INSIDE = 0.999999  # keeps 0 and 1 at a finite place
GROWTH = 10  # of c, as long as nothing was found
MANY = 10  # rounds, of which the last does not search for c any more
LARGEST = 1e10  # c of that one, where there is none known to be enough
PROGRESS = 1e-4  # a run that gains less in a tenth of its steps is over


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(SmallestPerturbation):
    """Minimises ‖x′ − x‖₂² + c·max(0, κ − lead) over w, x′ = (tanh w + 1)/2, with Adam.

    The lead is that of the best wrong class over the true one, or of the target over the best other.

    A binary search of `rounds` finds the smallest c for each image, from `constant` on; within a round there are
    `steps` of size `learning_rate`, fewer for an image whose loss stops falling if `abort_early`. Of all images that
    lead by more than `confidence` (κ, in logits) on the way the nearest is kept.

        attack = CarliniWagner(
            norm=Norm.l2, target=None, rounds=9, steps=1000, learning_rate=0.01, constant=1e-3, confidence=0.0,
            abort_early=True,
        )
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2,)

    rounds: int
    steps: int
    learning_rate: float
    constant: float
    confidence: float
    abort_early: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rounds", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "constant"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be above 0, got {getattr(self, name):g}")
        if self.confidence < 0:
            raise ValueError(f"confidence: must be at least 0, got {self.confidence:g}")

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        target = None if self.target is None else torch.full_like(y, int(self.target))
        with torch.no_grad():
            far = (clear_lead(model(x), y, target) <= self.confidence).nonzero()[:, 0]
        nearest = x.clone()
        if len(far):
            nearest[far] = self.search(model, x[far], y[far], None if target is None else target[far])
        return nearest

    def search(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest images found with any c."""
        nearest, distance = x.clone(), x.new_full((len(x),), torch.inf)
        c = torch.full_like(distance, self.constant)
        too_small, enough = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for number in range(self.rounds):
            if number == self.rounds - 1 and self.rounds >= MANY:
                c = enough.clamp(max=LARGEST)  # once more with what was enough
            found = self.descend(model, x, y, target, c, nearest, distance)
            enough, too_small = torch.where(found, c, enough), torch.where(found, too_small, c)
            c = torch.where(enough.isinf(), c * GROWTH, (too_small + enough) / 2)
        return nearest

    def descend(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        c: Tensor,
        nearest: Tensor,
        distance: Tensor,
    ) -> Tensor:
        """One round with c [N]: improves `nearest` and `distance` in place; says which images reached the goal."""
        rows = torch.arange(len(x), device=x.device)
        reached = torch.zeros_like(c, dtype=torch.bool)
        origin = (INSIDE * (2 * x - 1)).atanh()
        middle = to_pixels(origin)  # x, but for what the way there and back rounds
        delta, mean, square = (torch.zeros_like(x) for _ in range(3))
        checked = torch.full_like(c, torch.inf)
        for step in range(self.steps):
            delta.requires_grad_(True)
            with torch.enable_grad():
                x_adv = to_pixels(origin[rows] + delta)
                logits = model(x_adv)
                goal = None if target is None else target[rows]
                short = (self.confidence - lead(logits, y[rows], goal)).clamp(min=0)
                loss = c[rows] * short + (x_adv - middle[rows]).flatten(1).square().sum(1)
                (gradient,) = torch.autograd.grad(loss.sum(), delta)
            with torch.no_grad():
                self.keep(x, x_adv, clear_lead(logits, y[rows], goal), rows, reached, nearest, distance)
                mean = 0.9 * mean + 0.1 * gradient
                square = 0.999 * square + 0.001 * gradient**2
                unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
                delta = delta - self.learning_rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
            if self.abort_early and step % ceil(self.steps / 10) == 0:
                falling = loss.detach() <= (1 - PROGRESS) * checked
                checked = loss.detach()[falling]
                rows, delta, mean, square = rows[falling], delta[falling], mean[falling], square[falling]
                if not len(rows):
                    break
        return reached

    def keep(
        self,
        x: Tensor,
        x_adv: Tensor,
        ahead: Tensor,
        rows: Tensor,
        reached: Tensor,
        nearest: Tensor,
        distance: Tensor,
    ) -> None:
        """Note which rows lead by more than the confidence, and keep those that are nearer than what was known."""
        leads = ahead > self.confidence
        reached[rows] |= leads
        far = (x_adv - x[rows]).flatten(1).norm(dim=1)
        closer = leads & (far < distance[rows])
        nearest[rows[closer]], distance[rows[closer]] = x_adv[closer], far[closer]


def to_pixels(w: Tensor) -> Tensor:
    """From the space without bounds to [0, 1]."""
    return (w.tanh() + 1) / 2
