"""A random step followed by FGSM: escapes the non-smooth vicinity of the image.

Tramèr, Kurakin, Papernot, Goodfellow, Boneh and McDaniel 2018, arXiv 1705.07204.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.geometry import ascend
from trustml_cli.attacks.iterative import iterate
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class RFGSM(Attack):
    """x' = x + α·sign(z) with z from a standard normal distribution, then FGSM from x' with what is left, ε − α.

    α is `random_share` · ε. In L2 both steps use the normalised vector instead of the sign.

        attack = RFGSM(norm=Norm.linf, target=None, random_share=0.5)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar = (Norm.linf, Norm.l2)

    random_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "random_share", at_least=0, below=1)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        alpha = self.random_share * epsilon
        start = ascend(x, torch.randn_like(x), alpha, self.norm).clamp(0, 1)
        uphill = partial(self.loss_gradient, model, y=y)
        return iterate(uphill, start, x, epsilon, self.norm, steps=1, size=epsilon - alpha)
