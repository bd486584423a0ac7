"""The loop that iterative gradient attacks share: a step uphill, then back into the ball."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.geometry import ascend, project
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Iterative(Attack):
    """An attack of `steps` steps of the size `step_size` (pixel units).

    Where that is None, the size follows epsilon: all steps together could go `rel_path_length` epsilons far.
    """

    norms: ClassVar = (Norm.linf, Norm.l2, Norm.l1)

    steps: int
    step_size: float | None
    rel_path_length: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "steps", at_least=1)
        require(self, "step_size", above=0)
        require(self, "rel_path_length", above=0)

    def step(self, epsilon: float) -> float:
        """The size of a step within the ball of `epsilon`."""
        return self.rel_path_length * epsilon / self.steps if self.step_size is None else self.step_size


def iterate(
    uphill: Callable[[Tensor], Tensor], start: Tensor, x: Tensor, epsilon: float, norm: Norm, steps: int, size: float
) -> Tensor:
    """From `start`, `steps` steps of `size` along what `uphill` returns for the images so far.

    After each step the images are brought back into the ball of `epsilon` around x and into [0, 1].
    """
    x_adv = start
    for _ in range(steps):
        direction = uphill(x_adv)
        assert direction.shape == x.shape
        x_adv = project(ascend(x_adv, direction, size, norm), x, epsilon, norm)
    return x_adv
