"""The loop of iterative gradient attacks: an ascent step, then a projection into the ball."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.geometry import ascend, project
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Iterative(Attack):
    """An attack of `steps` steps of size `step_size` (pixel units).

    If `step_size` is None, the step size is `rel_path_length` · epsilon / `steps`.
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
        """The step size for a ball of radius `epsilon`."""
        return self.rel_path_length * epsilon / self.steps if self.step_size is None else self.step_size


def iterate(
    uphill: Callable[[Tensor], Tensor], start: Tensor, x: Tensor, epsilon: float, norm: Norm, steps: int, size: float
) -> Tensor:
    """Take `steps` ascent steps of `size` from `start` along the gradient that `uphill` returns.

    After each step the images are projected into the ball of radius `epsilon` around x and clipped to [0, 1].
    """
    x_adv = start
    for _ in range(steps):
        direction = uphill(x_adv)
        assert direction.shape == x.shape
        x_adv = project(ascend(x_adv, direction, size, norm), x, epsilon, norm)
    return x_adv
