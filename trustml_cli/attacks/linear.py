"""The smallest perturbation that there is for a linear model, exactly: what every other attack is held against."""

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

NOTICED = 5e-7  # of the largest logit: a lead that a single linear layer does not lose by rounding
BEYOND = (6e-7, 1.2e-6, 2.5e-6, 1e-5, 1e-4)  # of the largest logit: how far across, until the model's float32 notices


@dataclass(frozen=True, kw_only=True)
class LinearOptimum(SmallestPerturbation):
    """The nearest point of the nearest half-space in which another class leads.

    With logits w·x + b, an image is misread as class k where (w_k − w_y)·d exceeds what k is behind y. The nearest
    such point within [0, 1] is known exactly in L∞, L2, L1 and L0 (see `into_halfspace`), and the smallest
    perturbation is the smallest over the classes.

    Computed in float64; then as little further as it takes for the model itself to notice. Raises ValueError for a
    model that is not linear. A target is not taken: it must lead all other classes at once, and for that there is no
    closed form.

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
    """The smallest change [N, D] of images x [N, D] that puts a class other than y ahead.

    Ahead by `beyond`, a share of the largest logit; 0 where [0, 1] has no such image. `parameters` [K, D + 1] are the
    weights and the bias.
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
