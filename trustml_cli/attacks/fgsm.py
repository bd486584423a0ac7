"""The fast gradient sign method: one step along the gradient.

Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm, per_image


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x + ε·sign(∇ₓ loss) for L∞; x + ε·∇ₓ loss / ‖∇ₓ loss‖₂ for L2; both clipped to [0, 1].

    With a target the loss is the target's and the step goes down. An image whose gradient is zero stays as it is.

        attack = FGSM(norm=Norm.linf, target=None)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return next(self.curve(model, x, y, [epsilon]))

    def curve(self, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float]) -> Iterator[Tensor]:
        """All epsilons from one backward pass: the gradient does not depend on them."""
        direction = unit_step(self.loss_gradient(model, x, y), self.norm)
        assert direction.shape == x.shape
        for epsilon in epsilons:
            yield (x + epsilon * direction).clamp(0, 1)


def unit_step(gradient: Tensor, norm: Norm) -> Tensor:
    """The step of size 1 in `norm` along which a linear loss rises most; zero where the gradient is."""
    if norm is Norm.linf:
        return gradient.sign()
    length = gradient.flatten(1).norm(dim=1)
    return gradient / per_image(length.where(length > 0, 1.0), gradient)
