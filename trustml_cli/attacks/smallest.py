"""The base class of attacks that search for the smallest perturbation instead of the worst within a budget."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack
from trustml_cli.attacks.geometry import project


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
            yield project(found, x, epsilon, self.norm)
