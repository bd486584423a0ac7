"""Random noise: the baseline that every attack must exceed."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Attack, Norm
from trustml_cli.attacks.geometry import random_start


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """A uniformly random point of the ball, clipped to [0, 1]; the model is not queried.

    x_adv = Noise(norm=Norm.linf, target=None)(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar = tuple(Norm)
    access: ClassVar = Access.none

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise ValueError(f"target: must be null, got {self.target}; noise has no target")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return random_start(x, epsilon, self.norm)
