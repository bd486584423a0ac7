"""The fast gradient sign method: one step along the gradient.

Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.geometry import ascend


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x + ε·sign(∇ₓ loss) for L∞; x + ε·∇ₓ loss / ‖∇ₓ loss‖₂ for L2; both clipped to [0, 1].

    For L1 the values with the largest gradients move to 0 or 1, one after the other, until the budget ε is used.

    With a target the step decreases the loss of the target class. An image with zero gradient is not changed.

        attack = FGSM(norm=Norm.linf, target=None)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar = (Norm.linf, Norm.l2, Norm.l1)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return next(self.curve(model, x, y, [epsilon]))

    def curve(self, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float]) -> Iterator[Tensor]:
        """All epsilons from one backward pass: the gradient does not depend on them."""
        gradient = self.loss_gradient(model, x, y)
        assert gradient.shape == x.shape
        for epsilon in epsilons:
            yield ascend(x, gradient, epsilon, self.norm).clamp(0, 1)
