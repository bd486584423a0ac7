"""Boundary attack: a random walk along the decision boundary towards the image.

Brendel, Rauber and Bethge 2018, arXiv 1712.04248.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm, per_image
from trustml_cli.attacks.decision import DecisionBased, Oracle, halvings
from trustml_cli.attacks.geometry import lengths, normalised
from trustml_cli.attacks.smallest import Nearest
from trustml_cli.system.ranges import require

CHECKED = 10  # steps between two questions whether the point on the sphere alone is of another class
ENOUGH = 10  # answers after which a step size is adapted
ADAPTATION = 1.5  # factor on a step size
TOO_EASY, TOO_HARD = 0.5, 0.2  # shares of points on the sphere of another class beyond which both steps are adapted
TOO_SHORT, TOO_LONG = 0.25, 0.1  # the same for the step towards the image alone


@dataclass(frozen=True, kw_only=True)
class Boundary(DecisionBased):
    """Each step moves at random on the sphere around the image, then towards it; it is taken if the class is another.

    `sphere_step` and `source_step` are the lengths of both parts as shares of the distance, at first; each image adapts
    them by how often such points are of another class. It starts at the boundary, found by bisection.

        attack = Boundary(norm=Norm.l2, target=None, queries=5000, sphere_step=0.01, source_step=0.01)
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2,)

    sphere_step: float
    source_step: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "sphere_step", "source_step", above=0, below=1)

    def walk(self, wrong: Oracle, x: Tensor, nearest: Nearest, queries: int) -> None:
        steps = min(halvings(x[0].numel() ** -1.5), max(queries, 0))
        x_adv = self.bisect(wrong, x, nearest.images, steps)
        size = lengths(x_adv - x)
        nearest.note(x_adv, torch.ones_like(wrong.y, dtype=torch.bool), size)
        around, ahead = Share(size), Share(size)
        sphere, source = torch.full_like(size, self.sphere_step), torch.full_like(size, self.source_step)
        left, number = queries - steps, 0
        while left > 1:
            number += 1
            on_sphere = rotated(x, nearest.images, nearest.size, sphere)
            back = x - on_sphere
            length = (source * nearest.size + lengths(back) - nearest.size).clamp(min=0)
            candidate = (on_sphere + per_image(length, x) * normalised(back)).clamp(0, 1)
            reached = wrong(candidate)
            nearest.note(candidate, reached, lengths(candidate - x))
            left -= 1
            if number % CHECKED == 0:
                left -= 1
                factor = around.factor(wrong(on_sphere), TOO_HARD, TOO_EASY)
                sphere, source = (sphere * factor).clamp(max=1), source * factor
                source = (source * ahead.factor(reached, TOO_LONG, TOO_SHORT)).clamp(max=0.5)


class Share:
    """Counts answers of each image, and says how to change a step size by them."""

    def __init__(self, like: Tensor) -> None:
        self.yes, self.all = torch.zeros_like(like), torch.zeros_like(like)

    def factor(self, answers: Tensor, low: float, high: float) -> Tensor:
        """Count `answers` (bool [N]); the factor on the step size of each image, 1 unless it has enough answers.

        It is larger if more than the share `high` were yes, smaller if less than `low`; then the count starts again.
        """
        self.yes, self.all = self.yes + answers, self.all + 1
        share, full = self.yes / self.all, self.all >= ENOUGH
        longer, shorter = full & (share > high), full & (share < low)
        factor = torch.ones_like(share)
        factor[longer], factor[shorter] = ADAPTATION, 1 / ADAPTATION
        self.yes, self.all = self.yes.where(~full, 0.0), self.all.where(~full, 0.0)
        return factor


def rotated(x: Tensor, x_adv: Tensor, size: Tensor, step: Tensor) -> Tensor:
    """Random points at distance `size` from x, `step`·`size` away from x_adv across the way to x; clipped to [0, 1]."""
    change = x_adv - x
    toward = normalised(change)
    drawn = torch.randn_like(x)
    along = (drawn * toward).flatten(1).sum(1)
    across = normalised(drawn - per_image(along, x) * toward)
    moved = change + per_image(step * size, x) * across
    return (x + per_image(size, x) * normalised(moved)).clamp(0, 1)
