"""Attacks that see nothing of a network but the class that it predicts: where they start, and how they find a boundary.

The starting point and the bisection are those of Chen, Jordan and Wainwright 2020, arXiv 1904.02144.
"""

from abc import abstractmethod
from dataclasses import dataclass
from math import ceil, log2
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trustml_cli.attacks.attack import Access, Norm, per_image
from trustml_cli.attacks.geometry import lengths
from trustml_cli.attacks.losses import clear_margin
from trustml_cli.attacks.smallest import Nearest, SmallestPerturbation
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require

STARTS = 50  # random images that are tried as starting points, at most


@dataclass(frozen=True)
class Oracle:
    """Whether the predicted class of images is not that of `y` [N]; a lead within rounding does not count."""

    model: nn.Module
    y: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Of images x, [k·N, …] in k repetitions of the images of `y`: bool [k·N]."""
        y = self.y.repeat(len(x) // len(self.y))
        return clear_margin(logits_of(self.model, x), y, None) > 0

    def of(self, rows: Tensor) -> "Oracle":
        """The oracle of these images."""
        return Oracle(self.model, self.y[rows])


@dataclass(frozen=True, kw_only=True)
class DecisionBased(SmallestPerturbation):
    """Walks from a random image that is misclassified towards the attacked one, by at most `queries` queries for each.

    It has no targeted form: a random image is rarely taken for a class of one's choice.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2, Norm.linf)
    access: ClassVar[Access] = Access.query

    queries: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise ValueError(f"target: must be null, got {self.target}; it starts from any wrong class")
        require(self, "queries", at_least=1)

    @torch.no_grad()
    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.for_standing(self.search, model, x, y)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The nearest images of another class; x where no starting point was found."""
        tries = min(STARTS, ceil(self.queries / 4))
        found, left = x.clone(), torch.arange(len(x), device=x.device)
        for number in range(tries):
            start = noise(x[left], number)
            wrong = Oracle(model, y[left])(start)
            found[left[wrong]] = start[wrong]
            left = left[~wrong]
            if not len(left):
                break
        rows = (found != x).flatten(1).any(1).nonzero()[:, 0]
        if len(rows):
            nearest = Nearest(found[rows], self.size(found[rows] - x[rows]))
            self.walk(Oracle(model, y[rows]), x[rows], nearest, self.queries - tries)
            found[rows] = nearest.images
        return found

    @abstractmethod
    def walk(self, wrong: Oracle, x: Tensor, nearest: Nearest, queries: int) -> None:
        """Note images of another class that are nearer to x than those in `nearest`, by at most `queries` queries."""

    def size(self, change: Tensor) -> Tensor:
        """The size of perturbations [N, …] in the attack's norm, [N]."""
        return lengths(change, 2 if self.norm is Norm.l2 else torch.inf)

    def bisect(self, wrong: Oracle, x: Tensor, x_adv: Tensor, steps: int) -> Tensor:
        """The images of another class on the way from x_adv to x that `steps` halvings find.

        The way is a line in L2; in L∞ the largest changes shrink first.
        """
        low, high = torch.zeros_like(per_image(wrong.y, x), dtype=x.dtype), torch.ones_like(per_image(wrong.y, x))
        high = high.to(x.dtype)
        for _ in range(steps):
            middle = (low + high) / 2
            reached = per_image(wrong(self.between(x, x_adv, middle)), x)
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return self.between(x, x_adv, high)

    def between(self, x: Tensor, x_adv: Tensor, share: Tensor) -> Tensor:
        """The images at `share` of the distance from x to x_adv; x_adv itself where it is 1."""
        change = x_adv - x
        if self.norm is Norm.l2:
            return torch.where(share == 1, x_adv, x + share * change)
        limit = share * per_image(self.size(change), x)
        return torch.where(share == 1, x_adv, x + change.clamp(-limit, limit))


def halvings(threshold: float) -> int:
    """How often 1 must be halved to be at most `threshold`."""
    return ceil(log2(1 / threshold))


def noise(x: Tensor, number: int) -> Tensor:
    """Uniformly random images of x's shape; try 0 draws every pixel, later ones squares of 2, 4, … pixels in turn."""
    coarse = number % (1 + int(log2(min(x.shape[2:]))))
    grid = [max(side >> coarse, 1) for side in x.shape[2:]]
    drawn = torch.rand(len(x), x.shape[1], *grid, dtype=x.dtype, device=x.device)
    return interpolate(drawn, size=x.shape[2:], mode="nearest")
