"""EAD, the elastic-net attack: small L1 perturbations by iterative shrinkage and thresholding.

Chen, Sharma, Zhang, Yi and Hsieh 2018, arXiv 1709.04114.
"""

from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.losses import clear_margin, logit_margin
from trustml_cli.attacks.smallest import Nearest, SmallestPerturbation
from trustml_cli.models.inference import gradient_wrt, logits_of
from trustml_cli.system.ranges import require

GROWTH = 10  # factor on c after a round without success
PROGRESS = 1e-4  # early abort if the loss falls by a smaller share in a tenth of the steps


class Rule(Enum):
    """Which of the images that reach the goal is the nearest."""

    l1 = "l1"
    """That of the smallest L1 distance."""
    elastic_net = "elastic_net"
    """That of the smallest β·‖x′ − x‖₁ + ‖x′ − x‖₂²."""


@dataclass(frozen=True, kw_only=True)
class EAD(SmallestPerturbation):
    """Minimises c·max(0, κ − margin) + ‖x′ − x‖₂² + β·‖x′ − x‖₁ over x′ in [0, 1], by FISTA.

    The margin is the logit of the best wrong class minus that of the true one, or of the target minus the best other.
    Each of at most `steps` steps descends the first two terms from an extrapolated point, with learning rate `lr` that
    falls to 0 as a square root, and then moves each value by β = `beta` towards that of x. A binary search of `rounds`
    rounds finds the smallest c for each image, starting at `constant`. Of all iterates with a margin above `confidence`
    (κ, in logits) the nearest by `rule` is kept. With `abort_early` a round ends for an image whose loss stops falling.

        attack = EAD(
            norm=Norm.l1, target=None, rounds=9, steps=1000, lr=0.01, constant=1e-3, beta=0.01, confidence=0.0,
            rule=Rule.l1, abort_early=True,
        )
        x_adv = attack(model, x, y, epsilon=8.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l1,)

    rounds: int
    steps: int
    lr: float
    constant: float
    beta: float
    confidence: float
    rule: Rule
    abort_early: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "rounds", "steps", at_least=1)
        require(self, "lr", "constant", "beta", above=0)
        require(self, "confidence", at_least=0)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.for_standing(self.search, model, x, y, self.confidence)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest images over all c tried; x where none was found."""
        nearest = Nearest.none(x)
        c = torch.full_like(nearest.size, self.constant)
        too_small, enough = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(self.rounds):
            found = self.descend(model, x, y, target, c, nearest)
            enough, too_small = torch.where(found, c, enough), torch.where(found, too_small, c)
            c = torch.where(enough.isinf(), c * GROWTH, (too_small + enough) / 2)
        return nearest.images

    def descend(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, c: Tensor, nearest: Nearest
    ) -> Tensor:
        """Run one round with c [N]; note the images in `nearest`; return which reached the goal, bool [N]."""
        reached, rows = torch.zeros_like(c, dtype=torch.bool), torch.arange(len(x), device=x.device)
        x_adv, ahead, checked = x.clone(), x.clone(), torch.full_like(c, torch.inf)
        for step in range(self.steps):
            goal = None if target is None else target[rows]
            loss, gradient = self.smooth_loss(model, x[rows], ahead[rows], y[rows], goal, c[rows])
            moved = ahead[rows] - self.lr * (1 - step / self.steps) ** 0.5 * gradient
            moved = shrink(moved, x[rows], self.beta)
            ahead[rows] = moved + step / (step + 3) * (moved - x_adv[rows])
            x_adv[rows] = moved
            with torch.no_grad():
                leads = clear_margin(logits_of(model, moved), y[rows], goal) > self.confidence
            reached[rows] |= leads
            here = Nearest(nearest.images[rows], nearest.size[rows])
            here.note(moved, leads, self.size(moved - x[rows]))
            nearest.images[rows], nearest.size[rows] = here.images, here.size
            if self.abort_early and step % ceil(self.steps / 10) == 0:
                falls = loss <= (1 - PROGRESS) * checked[rows]
                checked[rows] = loss
                rows = rows[falls]
                if not len(rows):
                    break
        return reached

    def smooth_loss(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, target: Tensor | None, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The part of the objective with a gradient, [N], and that gradient, of x's shape."""
        x_adv = x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            short = (self.confidence - logit_margin(logits_of(model, x_adv), y, target)).clamp(min=0)
            loss = c * short + (x_adv - x).flatten(1).square().sum(1)
            gradient = gradient_wrt(x_adv, loss.sum())
        return loss.detach(), gradient

    def size(self, change: Tensor) -> Tensor:
        """The distance by which the nearest image is chosen, [N]."""
        l1 = change.flatten(1).abs().sum(1)
        return l1 if self.rule is Rule.l1 else self.beta * l1 + change.flatten(1).square().sum(1)


def shrink(moved: Tensor, x: Tensor, beta: float) -> Tensor:
    """Move each value by β towards that of x, at most to it, and clip to [0, 1] (the paper's equation 6)."""
    change = moved - x
    return (x + change.sign() * (change.abs() - beta).clamp(min=0)).clamp(0, 1)
