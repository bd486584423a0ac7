"""The basic iterative method: many small FGSM steps.

Kurakin, Goodfellow and Bengio 2017, arXiv 1607.02533.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from trustml_cli.attacks.iterative import Iterative, iterate


@dataclass(frozen=True, kw_only=True)
class BIM(Iterative):
    """`steps` FGSM steps of `step_size` from x itself, each followed by a projection into the ball and [0, 1].

    attack = BIM(norm=Norm.linf, target=None, steps=10, step_size=None, rel_path_length=2.0)
    x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        uphill = partial(self.loss_gradient, model, y=y)
        return iterate(uphill, x, x, epsilon, self.norm, self.steps, self.step(epsilon))
