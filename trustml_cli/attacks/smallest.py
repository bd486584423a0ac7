"""The base class of attacks that search for the smallest perturbation instead of the worst within a budget."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, per_image
from trustml_cli.attacks.geometry import project
from trustml_cli.attacks.losses import clear_margin
from trustml_cli.models.inference import logits_of

Search = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]
"""The nearest images found, from a model, images x, their classes [N] and the target classes [N]; x where none was."""


@dataclass(frozen=True, kw_only=True)
class SmallestPerturbation(Attack):
    """An attack whose search does not depend on epsilon; the budget is applied afterwards.

    If the smallest perturbation found is larger than epsilon, the image is projected into the ball. It is then most
    likely classified correctly, so the attack has failed at this epsilon. If none was found, the image is unchanged.
    """

    @abstractmethod
    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The nearest images found that reach the goal, of x's shape and in [0, 1]; x itself where there is none."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return next(self.curve(model, x, y, [epsilon]))

    def curve(self, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float]) -> Iterator[Tensor]:
        """All epsilons from one search."""
        found = self.smallest(model, x, y)
        for epsilon in epsilons:
            yield self.within(found, x, epsilon)

    def within(self, found: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """The images `found` by `smallest`, moved into the ball of radius `epsilon` around x."""
        return project(found, x, epsilon, self.norm)

    def for_standing(self, search: Search, model: nn.Module, x: Tensor, y: Tensor, confidence: float = 0.0) -> Tensor:
        """`search` the images whose margin of the goal is at most `confidence`; the others are returned as they are."""
        target = None if self.target is None else torch.full_like(y, int(self.target))
        with torch.no_grad():
            rows = (clear_margin(logits_of(model, x), y, target) <= confidence).nonzero()[:, 0]
        nearest = x.clone()
        if len(rows):
            nearest[rows] = search(model, x[rows], y[rows], None if target is None else target[rows])
        return nearest


@dataclass
class Nearest:
    """The nearest images that reach the goal, of those noted, and their distances [N]; at first x, at distance ∞."""

    images: Tensor
    size: Tensor

    @classmethod
    def none(cls, x: Tensor) -> Self:
        """Nothing noted yet, for images x."""
        return cls(x.clone(), torch.full_like(x.flatten(1)[:, 0], torch.inf))

    def note(self, found: Tensor, reached: Tensor, size: Tensor) -> None:
        """Keep the images of `found` that have `reached` the goal (bool [N]) at a smaller distance than before."""
        closer = reached & (size < self.size)
        self.images = torch.where(per_image(closer, found), found, self.images)
        self.size = torch.where(closer, size, self.size)
