"""Fast adaptive boundary attack: the smallest perturbation, by projections onto linearised decision boundaries.

Croce and Hein 2020, arXiv 1907.02044.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm, per_image
from trustml_cli.attacks.attempts import AttackState, Attempt
from trustml_cli.attacks.geometry import lengths, random_start
from trustml_cli.attacks.halfspace import into_halfspace
from trustml_cli.attacks.losses import logit_margin, loss_gradient, of, rounding
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require

PULL = 0.1  # largest weight of the projection of the original image against that of the iterate (the paper's α_max)
OVERSHOOT = 1.05  # factor on each step, to cross the boundary (η)
BACK = 0.9  # factor on a perturbation that reached the goal, before the search continues (β)
ORDER = {Norm.linf: torch.inf, Norm.l2: 2.0, Norm.l1: 1.0}


@dataclass(frozen=True, kw_only=True)
class FAB(SmallestPerturbation):
    """Follows a decision boundary to its point nearest to the image, by repeated linearisation.

    Each of `steps` steps linearises the boundary to one class and projects the iterate and the original image exactly
    onto this hyperplane within [0, 1]. The next iterate is a convex combination of the two, with a small overshoot.
    A misclassified iterate is kept if it is the nearest so far; the search then continues closer to the original.

    It runs for each of the `targets` most likely wrong classes (the targeted form of the paper, which scales to many
    classes); any wrong prediction is a success. With a target only that class is. The first of `restarts` runs starts
    at the image, the others at a random point within half the size of the smallest perturbation found.

        attack = FAB(norm=Norm.linf, target=None, steps=100, restarts=1, targets=9)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf, Norm.l2, Norm.l1)

    steps: int
    restarts: int
    targets: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "steps", "restarts", "targets", at_least=1)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        state = AttackState(model, x, y, None if self.target is None else int(self.target))
        left, nearest = state.left, x.clone()
        sizes = torch.full_like(state.margin, torch.inf)
        for restart in range(self.restarts):
            for attempt in state.attempts(self.targets):
                radius = sizes[left][attempt.image] / 2 if restart else None
                found, size, _ = self.run(model, attempt, radius, enough=0.0)
                found, size = attempt.best(found, -size)
                closer = -size < sizes[left]
                nearest[left[closer]], sizes[left[closer]] = found[closer], -size[closer]
        return nearest

    def attack_remaining(self, state: AttackState, epsilon: float) -> None:
        """Attack the images without success so far; success is reaching the goal within `epsilon`."""
        for restart in range(self.restarts):
            for attempt in state.attempts(self.targets):
                radius = torch.full_like(attempt.x[:, 0, 0, 0], epsilon / 2) if restart else None
                found, size, lead = self.run(state.model, attempt, radius, enough=epsilon)
                state.take(attempt, found, lead.where(size <= epsilon, -torch.inf))

    def run(
        self, model: nn.Module, attempt: Attempt, radius: Tensor | None, enough: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run once from a random point within `radius` [P] of the images, or from the images themselves if None.

        Returns for each row the nearest image that reaches the goal, its distance and its margin; ∞ and −∞ if there is
        none. A row stops once its image has one within `enough`.
        """
        x, count = attempt.x, len(attempt.x)
        nearest, sizes, leads = x.clone(), x.new_full((count,), torch.inf), x.new_full((count,), -torch.inf)
        rows = torch.arange(count, device=x.device)
        x_adv = x
        if radius is not None:
            offset = random_start(torch.full_like(x, 0.5), 0.5, self.norm) - 0.5
            x_adv = (x + per_image(2 * radius.where(radius.isfinite(), 0.0), x) * offset).clamp(0, 1)
        for _ in range(self.steps):
            _, ahead, normal = loss_gradient(model, x_adv, partial(ahead_of, attempt=attempt, rows=rows))
            x_adv = between(x[rows], x_adv, normal, ahead, self.norm)
            with torch.no_grad():
                lead = attempt.margin(logits_of(model, x_adv), rows)
            reached = lead > 0
            change = x_adv - x[rows]
            size = lengths(change, ORDER[self.norm])
            closer = reached & (size < sizes[rows])
            nearest[rows[closer]], sizes[rows[closer]], leads[rows[closer]] = x_adv[closer], size[closer], lead[closer]
            x_adv = torch.where(per_image(reached, x), x[rows] + BACK * change, x_adv)
            done = sizes[rows] <= enough
            if done.any():
                kept = attempt.open(done, rows)
                rows, x_adv = rows[kept], x_adv[kept]
                if not len(rows):
                    break
        return nearest, sizes, leads


def ahead_of(logits: Tensor, attempt: Attempt, rows: Tensor) -> Tensor:
    """The margin of the goal over the true class [n], or of an attack's target over all other classes.

    Twice the rounding tolerance is subtracted: an iterate exactly on the boundary would stay there.
    """
    y, goal = attempt.labels(rows)
    if goal is None or attempt.target is not None:
        return logit_margin(logits, y, goal) - 2 * rounding(logits)
    return of(logits, goal) - of(logits, y) - 2 * rounding(logits)


def between(x: Tensor, x_adv: Tensor, normal: Tensor, ahead: Tensor, norm: Norm) -> Tensor:
    """The next iterate: a convex combination of the projections of x_adv and x; the nearer one has more weight."""
    origin, here, normal = x.flatten(1), x_adv.flatten(1), normal.flatten(1)
    at_origin = ahead + (normal * (origin - here)).sum(1)
    step, jump = onto_hyperplane(
        torch.cat([here, origin]), torch.cat([normal, normal]), torch.cat([ahead, at_origin]), norm
    ).chunk(2)
    near, far = (lengths(change, ORDER[norm]).clamp(min=1e-8) for change in (step, jump))
    weight = (near / (near + far)).clamp(max=PULL)[:, None]
    moved = (1 - weight) * (here + OVERSHOOT * step) + weight * (origin + OVERSHOOT * jump)
    return moved.clamp(0, 1).view_as(x)


def onto_hyperplane(x: Tensor, normal: Tensor, ahead: Tensor, norm: Norm) -> Tensor:
    """The smallest change of x [N, D] after which `ahead` [N], linear with gradient `normal`, is 0; for either sign."""
    return into_halfspace(x, -normal * ahead.sign()[:, None], ahead.abs(), norm)
