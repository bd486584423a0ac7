"""Extraction of linear classifiers by solving equations, and by retraining where only labels are told.

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

ROUNDED_TO_NOTHING = 0.5  # of the last digit: where a probability that was rounded to zero lies at most


class LinearClassifier(nn.Module):
    """Wx + b on inputs as they are: weights [K, D], bias [K], inputs [N, …] of D values each."""

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
    """What the equation solvers share: their queries lie around grey of brightness `centre`, in (0, 1)."""

    centre: float

    def __post_init__(self) -> None:
        require(self, "centre", above=0, below=1)

    @property
    def linear(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class LinearLogits(Linear):
    """Solves Wx + b = logits for W and b: exact from D + 1 queries (section 4.1.1 of the paper).

    More queries average out what rounding adds; from fewer, it is the solution of least norm. D is the number of
    values of an input; the solution is in float64.
    """

    @property
    def needs(self) -> Answer:
        return Answer.logits

    def comparable(self, parameters: Tensor) -> Tensor:
        return parameters  # logits hide nothing

    def __call__(self, victim: Victim, queries: int, means: Means) -> LinearClassifier:
        x = well_spread(queries, prod(victim.shape), self.centre, means.random)
        return LinearClassifier(*solve(x, victim.logits(x.float().view(-1, *victim.shape)).double(), self.centre))


@dataclass(frozen=True, kw_only=True)
class LinearSoftmax(Linear):
    """Solves (Wx + b)ₖ − mean over classes = log pₖ − mean of log p, exact from D + 1 queries (section 4.1.2).

    The softmax hides what is added to all logits alike, so that W and b are found up to one row that all classes
    share; predictions and probabilities do not depend on it. A probability that was rounded to zero is taken for half
    of the last digit's unit.
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
    """So many random inputs [count, values] in [0, 1] whose equations are well conditioned, float64.

    Each block of values + 1 inputs is grey, `centre`, plus the rows of a random orthogonal matrix, as far as the range
    goes. Its columns are orthogonal to the column of ones that stands for the bias.
    """
    room = min(centre, 1 - centre)
    blocks = []
    for _ in range(-(-count // (values + 1))):
        square = torch.randn(values + 1, values + 1, generator=random, dtype=torch.float64)
        square[:, 0] = 1
        directions = torch.linalg.qr(square).Q[:, 1:]
        blocks.append(centre + directions * (room / directions.abs().max()))
    return torch.cat(blocks)[:count].float().clamp(0, 1).double()  # exactly what a float32 victim will see


def solve(x: Tensor, z: Tensor, centre: float) -> tuple[Tensor, Tensor]:
    """Weights [K, D] and bias [K] with xWᵀ + b ≈ z by least squares, in float64.

    Where there are fewer equations than unknowns, it is the solution of least norm in coordinates around `centre`.
    """
    centred = torch.cat([x - centre, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    solution = torch.linalg.lstsq(centred, z, driver="gelsd").solution
    weights = solution[:-1].T
    return weights, solution[-1] - centre * weights.sum(1)
