"""The exact smallest perturbation for a linear model: a lower bound for every other attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.halfspace import into_halfspace
from trustml_cli.attacks.losses import logit_margin
from trustml_cli.attacks.measure import sizes
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.models.inference import logits_of
from trustml_cli.models.linear import linear_parameters

NOTICED = 5e-7  # margin relative to the largest logit that exceeds the rounding error of one linear layer
BEYOND = (6e-7, 1.2e-6, 2.5e-6, 1e-5, 1e-4)  # margins to aim for, relative to the largest logit, tried in turn


@dataclass(frozen=True, kw_only=True)
class LinearOptimum(SmallestPerturbation):
    """The nearest point of the nearest half-space in which another class has a higher logit than y.

    With logits w·x + b, class k is predicted over y where (w_k − w_y)·d exceeds the logit difference of y and k. The
    nearest such point within [0, 1] is known exactly in L∞, L2, L1 and L0 (see `into_halfspace`); the smallest
    perturbation is the minimum over the classes.

    It is computed in float64 and enlarged by the smallest step of `BEYOND` after which the float32 model is wrong too.
    Raises ValueError for a model that is not linear. Targets are not supported: a target must exceed all other classes
    at once, which has no closed form.

        attack = LinearOptimum(norm=Norm.l2, target=None)
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)
    optimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise ValueError(f"target: must be null, got {self.target}; the nearest wrong class has a closed form")

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        try:
            linear_parameters(model, shape)
        except ValueError as error:
            raise ValueError("needs a linear model, such as model=logistic") from error

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        parameters = linear_parameters(model, tuple(x.shape[1:]))
        with torch.no_grad():
            standing = logit_margin(logits_of(model, x), y, None) <= 0
        nearest = x.clone()
        for beyond in BEYOND:
            rows = standing.nonzero()[:, 0]
            if not len(rows):
                break
            change = smallest_change(parameters, x[rows].flatten(1).double().cpu(), y[rows].cpu(), beyond, self.norm)
            x_adv = (x[rows].double().cpu() + change.view(-1, *x.shape[1:])).clamp(0, 1).to(x)
            with torch.no_grad():
                logits = logits_of(model, x_adv)
                crossed = logit_margin(logits, y[rows], None) > NOTICED * logits.abs().amax(1)
            nearest[rows[crossed]] = x_adv[crossed]
            standing[rows[crossed]] = False
        return nearest


def smallest_change(parameters: Tensor, x: Tensor, y: Tensor, beyond: float, norm: Norm) -> Tensor:
    """The smallest change [N, D] of images x [N, D] after which a class other than y has the higher logit.

    The margin is `beyond` times the largest logit; the change is 0 if no image in [0, 1] has it. `parameters`
    [K, D + 1] are the weights and the bias.
    """
    weights, bias = parameters[:, :-1], parameters[:, -1]
    logits = x @ weights.T + bias
    row = torch.arange(len(x))
    best, least = torch.zeros_like(x), torch.full_like(logits[:, 0], torch.inf)
    for label in range(len(weights)):
        normal = weights[label] - weights[y]
        gap = logits[row, y] - logits[:, label] + beyond * logits.abs().amax(1)
        change = into_halfspace(x, normal, gap.clamp(min=0), norm)
        possible = (y != label) & ((change * normal).sum(1) >= gap * (1 - 1e-9))
        size = sizes(change)[norm].double().where(possible, torch.inf)
        closer = size < least
        best[closer], least[closer] = change[closer], size[closer]
    return best
