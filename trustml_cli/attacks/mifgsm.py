"""The momentum iterative fast gradient sign method: steps along a running sum of gradients.

Dong, Liao, Pang, Su, Zhu, Hu and Li 2018, arXiv 1710.06081.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.attacks.geometry import normalised
from trustml_cli.attacks.iterative import Iterative, iterate
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Iterative):
    """g ← `decay`·g + ∇/‖∇‖₁, then a step along g (its sign in L∞, its direction in L2).

    According to the paper, momentum helps to escape poor local maxima and improves transfer to other networks.

        attack = MIFGSM(norm=Norm.linf, target=None, steps=10, step_size=None, rel_path_length=1.0, decay=1.0)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "decay", at_least=0, at_most=1)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        momentum = torch.zeros_like(x)

        def uphill(x_adv: Tensor) -> Tensor:
            nonlocal momentum
            gradient = self.loss_gradient(model, x_adv, y)
            momentum = self.decay * momentum + normalised(gradient, 1)
            return momentum

        return iterate(uphill, x, x, epsilon, self.norm, self.steps, self.step(epsilon))
