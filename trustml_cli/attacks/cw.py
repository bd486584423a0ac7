"""Carlini and Wagner's L2, L∞ and L0 attacks: smallest perturbations by gradient descent in tanh space.

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

INSIDE = 0.999999  # scale before atanh, so that pixel values 0 and 1 map to finite values
GROWTH = 10  # factor on c after a round without success
MANY = 10  # from this number of rounds on, the last one reuses the smallest successful c
LARGEST = 1e10  # c of that last round if no c was successful
PROGRESS = 1e-4  # early abort if the loss falls by a smaller share in a tenth of the steps
TIGHTER = 0.9  # factor on the limit τ (L∞) after each success
FINEST = 1 / 256  # smallest limit τ
LEFT_OUT = 0.2  # largest share of the free values that L0 fixes at once


@dataclass(frozen=True)
class Distance:
    """The distance that the descent minimises: `loss` of perturbations [n, …] of the images with indices [n].

    `size` is the reported size of the perturbations. The descent stops for an image that reaches its goal with a size
    of at most `enough` [N]. `free` (bool) marks the values that may change.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    size: Callable[[Tensor], Tensor]
    enough: Tensor
    free: Tensor

    def of(self, rows: Tensor) -> "Distance":
        """The distance restricted to the images `rows`."""
        return Distance(lambda change, n: self.loss(change, rows[n]), self.size, self.enough[rows], self.free[rows])


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(SmallestPerturbation):
    """Minimises distance(x′, x) + c·max(0, κ − margin) over w, x′ = (tanh w + 1)/2, with Adam.

    The margin is the logit of the best wrong class minus that of the true one, or of the target minus the best other.
    Of all iterates with a margin above `confidence` (κ, in logits) the nearest to x is kept. A round has `steps` steps
    with learning rate `lr`; with `abort_early` it ends for an image whose loss stops falling.

    In L2 the distance is ‖x′ − x‖₂², and a binary search of `rounds` rounds finds the smallest c for each image,
    starting at `constant`. In L∞ it is Σ max(0, |x′ − x| − τ): τ falls by a tenth or more after each success, and c
    grows for at most `rounds` rounds without success. In L0 the attack starts from the L2 result and repeatedly fixes
    the least important of the changed values to those of x, until the L2 attack on the remaining values fails.

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
        search = {Norm.l2: self.search, Norm.linf: self.tighten, Norm.l0: self.thin_out}[self.norm]
        return self.for_standing(search, model, x, y, self.confidence)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest adversarial images in L2 over all c tried; x where none was found."""
        nearest, size = x.clone(), x.new_full((len(x),), torch.inf)
        distance = squared(torch.zeros_like(size), everything(size, x))
        c = torch.full_like(size, self.constant)
        too_small, enough = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for number in range(self.rounds):
            if number == self.rounds - 1 and self.rounds >= MANY:
                c = enough.clamp(max=LARGEST)  # a last round with the smallest successful c
            found = self.descend(model, x, x, y, target, c, distance, nearest, size)
            enough, too_small = torch.where(found, c, enough), torch.where(found, too_small, c)
            c = torch.where(enough.isinf(), c * GROWTH, (too_small + enough) / 2)
        return nearest

    def tighten(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest adversarial images in L∞: penalise changes beyond a limit τ that shrinks with each success."""
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
        """Adversarial images with few changed values: fix the least important values until no image is found."""
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
        """The first adversarial images of size at most `distance.enough`, starting from `start`, and the c [n] used.

        c grows for at most `rounds` rounds. Where none was found, returns x and the initial c.
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
        """Run one round from `start` with c [N]; update `nearest` and `size` in place; return which succeeded."""
        rows = torch.arange(len(x), device=x.device)
        reached = torch.zeros_like(c, dtype=torch.bool)
        origin = from_pixels(x)
        middle = to_pixels(origin)  # x up to the rounding of atanh and tanh
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
    """The L2 distance: its loss is the sum of squares."""
    return Distance(
        loss=lambda perturbation, rows: perturbation.flatten(1).square().sum(1),
        size=lengths,
        enough=enough,
        free=free,
    )


def beyond(limit: Tensor, x: Tensor) -> Distance:
    """The L∞ distance: its loss is the sum of the excesses of |change| over the `limit` [n] of each image."""
    return Distance(
        loss=lambda perturbation, rows: (perturbation.flatten(1).abs() - limit[rows, None]).clamp(min=0).sum(1),
        size=lambda perturbation: perturbation.flatten(1).abs().amax(1),
        enough=limit,
        free=everything(limit, x),
    )


def everything(of: Tensor, x: Tensor) -> Tensor:
    """A mask of True for `len(of)` images of the shape of x [N, …]."""
    return torch.ones(len(of), *x.shape[1:], dtype=torch.bool, device=x.device)


def importance(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """First-order contribution of each changed value to the margin, |∇margin · (x_adv − x)|; of x's shape."""
    _, _, gradient = loss_gradient(model, x_adv, lambda logits: logit_margin(logits, y, target))
    return (gradient * (x_adv - x)).abs()


def least(weight: Tensor, free: Tensor, count: Tensor) -> Tensor:
    """A mask [N, …] of the `count` [N] free values of least weight."""
    order = weight.where(free, torch.inf).flatten(1).argsort(1).argsort(1)
    return (order < count[:, None]).view_as(free)


def from_pixels(x: Tensor) -> Tensor:
    """Map pixel values in [0, 1] to tanh space."""
    return (INSIDE * (2 * x - 1)).atanh()


def to_pixels(w: Tensor) -> Tensor:
    """Map tanh space to pixel values in [0, 1]."""
    return (w.tanh() + 1) / 2
