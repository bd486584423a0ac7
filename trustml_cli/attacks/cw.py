"""Carlini and Wagner's attacks: the smallest perturbation in L2, L∞ and L0, by descent in a space without bounds.

Carlini and Wagner 2017, arXiv 1608.04644.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import lengths
from trustml_cli.attacks.losses import clear_margin, logit_margin, loss_gradient
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.models.inference import gradient_wrt, logits_of
from trustml_cli.system.ranges import require

INSIDE = 0.999999  # keeps 0 and 1 at a finite place
GROWTH = 10  # of c, as long as nothing was found
MANY = 10  # rounds, of which the last does not search for c any more
LARGEST = 1e10  # c of that one, where there is none known to be enough
PROGRESS = 1e-4  # a run that gains less in a tenth of its steps is over
TIGHTER = 0.9  # what of the limit in L∞ is left after each success
FINEST = 1 / 256  # of these limits
LEFT_OUT = 0.2  # of the values that still change in L0, at once at most


@dataclass(frozen=True)
class Distance:
    """What a descent keeps small: `loss` of perturbations [n, …] of the images with numbers [n], and their `size`.

    An image that reached its goal within `enough` [N] goes on no further. `free` says which values may change.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    size: Callable[[Tensor], Tensor]
    enough: Tensor
    free: Tensor

    def of(self, rows: Tensor) -> "Distance":
        """The same for some of the images."""
        return Distance(lambda change, n: self.loss(change, rows[n]), self.size, self.enough[rows], self.free[rows])


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(SmallestPerturbation):
    """Minimises distance(x′, x) + c·max(0, κ − lead) over w, x′ = (tanh w + 1)/2, with Adam.

    The lead is that of the best wrong class over the true one, or of the target over the best other. Of all images
    that lead by more than `confidence` (κ, in logits) on the way the nearest is kept. A round has `steps` of size
    `lr`, fewer for an image whose loss stops falling if `abort_early`.

    In L2 the distance is ‖x′ − x‖₂², and a binary search of `rounds` finds the smallest c for each image, from
    `constant` on. In L∞ it is Σ max(0, |x′ − x| − τ): τ falls by a tenth with each success, and c grows for at most
    `rounds` without one. In L0 the values that mattered least to the nearest image in L2 are left out, and so on with
    those that mattered least to what is found without them, until nothing is.

        attack = CarliniWagner(
            norm=Norm.l2, target=None, rounds=9, steps=1000, lr=0.01, constant=1e-3, confidence=0.0,
            abort_early=True,
        )
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2, Norm.linf, Norm.l0)

    rounds: int
    steps: int
    lr: float
    constant: float
    confidence: float
    abort_early: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "rounds", "steps", at_least=1)
        require(self, "lr", "constant", above=0)
        require(self, "confidence", at_least=0)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        target = None if self.target is None else torch.full_like(y, int(self.target))
        with torch.no_grad():
            far = (clear_margin(logits_of(model, x), y, target) <= self.confidence).nonzero()[:, 0]
        search = {Norm.l2: self.search, Norm.linf: self.tighten, Norm.l0: self.thin_out}[self.norm]
        nearest = x.clone()
        if len(far):
            nearest[far] = search(model, x[far], y[far], None if target is None else target[far])
        return nearest

    def search(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest images found in L2 with any c; x where there is none."""
        nearest, size = x.clone(), x.new_full((len(x),), torch.inf)
        distance = squared(torch.zeros_like(size), everything(size, x))
        c = torch.full_like(size, self.constant)
        too_small, enough = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for number in range(self.rounds):
            if number == self.rounds - 1 and self.rounds >= MANY:
                c = enough.clamp(max=LARGEST)  # once more with what was enough
            found = self.descend(model, x, x, y, target, c, distance, nearest, size)
            enough, too_small = torch.where(found, c, enough), torch.where(found, too_small, c)
            c = torch.where(enough.isinf(), c * GROWTH, (too_small + enough) / 2)
        return nearest

    def tighten(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest images found in L∞: what goes beyond a limit is pressed back, and the limit falls."""
        nearest, limit = x.clone(), x.new_ones(len(x))
        c = torch.full_like(limit, self.constant)
        rows = torch.arange(len(x), device=x.device)
        while len(rows):
            goal = None if target is None else target[rows]
            found, c[rows] = self.any_within(
                beyond(limit[rows], x), model, x[rows], nearest[rows], y[rows], goal, c[rows]
            )
            reached = (found != x[rows]).flatten(1).any(1)
            rows, found = rows[reached], found[reached]
            nearest[rows], limit[rows] = found, TIGHTER * (found - x[rows]).flatten(1).abs().amax(1)
            rows = rows[limit[rows] > FINEST]
        return nearest

    def thin_out(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """Images in which few values changed: those that matter least are left out until nothing is found any more."""
        fewest = self.search(model, x, y, target)
        free, weight = fewest != x, importance(model, x, fewest, y, target)
        share, c = x.new_full((len(x),), LEFT_OUT), x.new_full((len(x),), self.constant)
        rows = free.flatten(1).any(1).nonzero()[:, 0]
        while len(rows):
            goal = None if target is None else target[rows]
            count = (share[rows] * free[rows].flatten(1).sum(1)).long().clamp(min=1)
            tried = free[rows] & ~least(weight[rows], free[rows], count)
            unlimited = torch.full_like(share[rows], torch.inf)
            found, c[rows] = self.any_within(
                squared(unlimited, tried), model, x[rows], fewest[rows], y[rows], goal, c[rows]
            )
            changed = found != x[rows]
            reached = changed.flatten(1).any(1)
            fewest[rows[reached]], free[rows[reached]] = found[reached], changed[reached]
            weight[rows[reached]] = importance(model, x[rows], found, y[rows], goal)[reached]
            share[rows[~reached]] /= 2
            rows = rows[reached | (count > 1)]
        return fewest

    def any_within(
        self,
        distance: Distance,
        model: nn.Module,
        x: Tensor,
        start: Tensor,
        y: Tensor,
        target: Tensor | None,
        c: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The first images found within what is enough, on from `start`, x where there is none; and c by then.

        That grows for at most `rounds`; where it was for nothing it is returned as it came.
        """
        found, size, grown = x.clone(), torch.full_like(c, torch.inf), c.clone()
        rows = torch.arange(len(x), device=x.device)
        for _ in range(self.rounds):
            nearest, its_size, goal = found[rows], size[rows], None if target is None else target[rows]
            self.descend(model, x[rows], start[rows], y[rows], goal, grown[rows], distance.of(rows), nearest, its_size)
            found[rows], size[rows] = nearest, its_size
            rows = rows[its_size.isinf() | (its_size > distance.enough[rows])]
            grown[rows] *= GROWTH
        found[rows], grown[rows] = x[rows], c[rows]
        return found, grown

    def descend(
        self,
        model: nn.Module,
        x: Tensor,
        start: Tensor,
        y: Tensor,
        target: Tensor | None,
        c: Tensor,
        distance: Distance,
        nearest: Tensor,
        size: Tensor,
    ) -> Tensor:
        """One round from `start` with c [N]: improves `nearest` and its `size` in place; says what reached the goal."""
        rows = torch.arange(len(x), device=x.device)
        reached = torch.zeros_like(c, dtype=torch.bool)
        origin = from_pixels(x)
        middle = to_pixels(origin)  # x, but for what the way there and back rounds
        delta, mean, square = from_pixels(start) - origin, torch.zeros_like(x), torch.zeros_like(x)
        checked = torch.full_like(c, torch.inf)
        for step in range(self.steps):
            delta.requires_grad_(True)
            with torch.enable_grad():
                x_adv = torch.where(distance.free[rows], to_pixels(origin[rows] + delta), x[rows])
                logits = logits_of(model, x_adv)
                goal = None if target is None else target[rows]
                short = (self.confidence - logit_margin(logits, y[rows], goal)).clamp(min=0)
                loss = c[rows] * short + distance.loss(x_adv - middle[rows], rows)
                gradient = gradient_wrt(delta, loss.sum())
            with torch.no_grad():
                leads = clear_margin(logits, y[rows], goal) > self.confidence
                far = distance.size(x_adv - x[rows])
                closer = leads & (far < size[rows])
                reached[rows] |= leads
                nearest[rows[closer]], size[rows[closer]] = x_adv[closer], far[closer]
                mean = 0.9 * mean + 0.1 * gradient
                square = 0.999 * square + 0.001 * gradient**2
                unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
                delta = delta - self.lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
                goes_on = ~leads | (far > distance.enough[rows])
                if self.abort_early and step % ceil(self.steps / 10) == 0:
                    goes_on &= loss <= (1 - PROGRESS) * checked[rows]
                    checked[rows] = loss
            if not goes_on.all():
                rows, delta, mean, square = rows[goes_on], delta[goes_on], mean[goes_on], square[goes_on]
                if not len(rows):
                    break
        return reached


def squared(enough: Tensor, free: Tensor) -> Distance:
    """In L2: the sum of squares."""
    return Distance(
        loss=lambda perturbation, rows: perturbation.flatten(1).square().sum(1),
        size=lengths,
        enough=enough,
        free=free,
    )


def beyond(limit: Tensor, x: Tensor) -> Distance:
    """In L∞: how far values are beyond the `limit` [n] of their image, summed."""
    return Distance(
        loss=lambda perturbation, rows: (perturbation.flatten(1).abs() - limit[rows, None]).clamp(min=0).sum(1),
        size=lambda perturbation: perturbation.flatten(1).abs().amax(1),
        enough=limit,
        free=everything(limit, x),
    )


def everything(of: Tensor, x: Tensor) -> Tensor:
    """Every value of as many images as `of` has numbers, in the shape of x, bool."""
    return torch.ones(len(of), *x.shape[1:], dtype=torch.bool, device=x.device)


def importance(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """How much of the lead each changed value accounts for, to first order; of x's shape."""
    _, _, gradient = loss_gradient(model, x_adv, lambda logits: logit_margin(logits, y, target))
    return (gradient * (x_adv - x)).abs()


def least(weight: Tensor, free: Tensor, count: Tensor) -> Tensor:
    """The `count` [N] values of least weight among those that are free, bool, of their shape [N, …]."""
    order = weight.where(free, torch.inf).flatten(1).argsort(1).argsort(1)
    return (order < count[:, None]).view_as(free)


def from_pixels(x: Tensor) -> Tensor:
    """From [0, 1] to the space without bounds."""
    return (INSIDE * (2 * x - 1)).atanh()


def to_pixels(w: Tensor) -> Tensor:
    """From the space without bounds to [0, 1]."""
    return (w.tanh() + 1) / 2
