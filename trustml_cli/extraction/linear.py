"""Extraction of linear classifiers by solving equations in logits or probabilities.

Tramèr, Zhang, Juels, Reiter and Ristenpart 2016, "Stealing Machine Learning Models via Prediction APIs",
arXiv 1609.02943.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from trustml_cli.extraction.thief import Means, Thief
from trustml_cli.extraction.victim import Answer, Victim
from trustml_cli.system.ranges import require

ROUNDED_TO_NOTHING = 0.5  # in units of the last digit: upper bound for a probability that was rounded to zero


class LinearClassifier(nn.Module):
    """Wx + b on unnormalised inputs [N, …] of D values each: weights [K, D], bias [K]."""

    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(weights.shape[1], weights.shape[0])
        self.linear.weight.data.copy_(weights)
        self.linear.bias.data.copy_(bias)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Linear(Thief):
    """Base class of the equation solvers: queries are spread around a grey of brightness `centre`, in (0, 1)."""

    centre: float

    def __post_init__(self) -> None:
        require(self, "centre", above=0, below=1)

    @property
    def linear(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class LinearLogits(Linear):
    """Solves Wx + b = logits for W and b: exact from D + 1 queries (section 4.1.1 of the paper).

    More queries average out rounding errors; with fewer, the result is the minimum-norm solution. D is the number of
    values of an input; the system is solved in float64.
    """

    @property
    def needs(self) -> Answer:
        return Answer.logits

    def comparable(self, parameters: Tensor) -> Tensor:
        return parameters  # logits determine all parameters

    def __call__(self, victim: Victim, queries: int, means: Means) -> LinearClassifier:
        x = well_spread(queries, prod(victim.shape), self.centre, means.random)
        return LinearClassifier(*solve(x, victim.logits(x.float().view(-1, *victim.shape)).double(), self.centre))


@dataclass(frozen=True, kw_only=True)
class LinearSoftmax(Linear):
    """Solves (Wx + b)ₖ − mean over classes = log pₖ − mean of log p, exact from D + 1 queries (section 4.1.2).

    The softmax is invariant to a constant added to all logits, so W and b are determined up to one row common to all
    classes; predictions and probabilities do not depend on it. A probability that was rounded to zero is replaced by
    half a unit of the last digit.
    """

    @property
    def needs(self) -> Answer:
        return Answer.probabilities

    def __call__(self, victim: Victim, queries: int, means: Means) -> LinearClassifier:
        x = well_spread(queries, prod(victim.shape), self.centre, means.random)
        told = victim.probabilities(x.float().view(-1, *victim.shape)).double()
        digits = victim.round_digits
        floor = torch.finfo(torch.float32).tiny if digits is None else ROUNDED_TO_NOTHING * 10.0**-digits
        ratios = told.clamp(min=floor).log()
        return LinearClassifier(*solve(x, ratios - ratios.mean(1, keepdim=True), self.centre))


@torch.no_grad()
def well_spread(count: int, values: int, centre: float, random: torch.Generator) -> Tensor:
    """`count` random inputs [count, values] in [0, 1] whose system of equations is well conditioned, float64.

    Each block of values + 1 inputs is the grey `centre` plus the rows of a random orthogonal matrix, scaled to the
    range. Its columns are orthogonal to the column of ones that belongs to the bias.
    """
    room = min(centre, 1 - centre)
    blocks = []
    for _ in range(-(-count // (values + 1))):
        square = torch.randn(values + 1, values + 1, generator=random, dtype=torch.float64)
        square[:, 0] = 1
        directions = torch.linalg.qr(square).Q[:, 1:]
        blocks.append(centre + directions * (room / directions.abs().max()))
    return torch.cat(blocks)[:count].float().clamp(0, 1).double()  # the values that a float32 victim will see


def solve(x: Tensor, z: Tensor, centre: float) -> tuple[Tensor, Tensor]:
    """Weights [K, D] and bias [K] with xWᵀ + b ≈ z by least squares, in float64.

    If the system is underdetermined, the minimum-norm solution in coordinates around `centre`.
    """
    centred = torch.cat([x - centre, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    solution = torch.linalg.lstsq(centred, z, driver="gelsd").solution
    weights = solution[:-1].T
    return weights, solution[-1] - centre * weights.sum(1)
