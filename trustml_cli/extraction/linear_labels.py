"""Extraction of a linear classifier that returns labels only, by adaptive retraining, or by bisection.

Tramèr, Zhang, Juels, Reiter and Ristenpart 2016, arXiv 1609.02943, section 6.
"""

from dataclasses import dataclass
from enum import Enum
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.extraction.bisection import LINES, by_bisection, queries_needed
from trustml_cli.extraction.linear import LinearClassifier
from trustml_cli.extraction.thief import Means, Thief
from trustml_cli.extraction.victim import Answer, Victim
from trustml_cli.system.ranges import require

HALVINGS = 20  # bisection steps: 2^-20 of a line's length is below the resolution of float32 pixels


class Start(Enum):
    """Where the first queries, which are also the end points of the search lines, come from."""

    held_out = "held_out"
    """The thief's own images."""
    noise = "noise"
    """Pixels of random brightness on black, at all densities; needs no data."""


@dataclass(frozen=True, kw_only=True)
class LinearLabels(Thief):
    """Fits a logistic regression to the victim's labels, and queries next at its decision boundary.

    With `queries_needed` queries or more, which are fewer than 50 for each parameter, it uses `by_bisection` instead,
    which finds the boundaries exactly.

    Otherwise a quarter of the queries (at least five per class, if there are as many) are starting points. The others
    come in `rounds`: each draws lines between points that the fitted model classifies differently, and queries the
    point where its prediction changes, so that queries concentrate at the victim's decision boundaries. Labels do not
    determine the scale of the weights, so parameters are not comparable. `decay` is the factor of ‖W, b‖² in the loss
    of each fit (L-BFGS, at most `iterations`).
    """

    start: Start
    rounds: int
    decay: float
    iterations: int

    def __post_init__(self) -> None:
        require(self, "rounds", at_least=1)
        require(self, "decay", above=0)
        require(self, "iterations", at_least=1)

    @property
    def needs(self) -> Answer:
        return Answer.labels

    @property
    def linear(self) -> bool:
        return True

    def __call__(self, victim: Victim, queries: int, means: Means) -> LinearClassifier:
        if queries >= queries_needed(prod(victim.shape), victim.classes):
            points = self.points(LINES * victim.classes, victim, means)
            exact = by_bisection(victim, points, means.random)
            if exact is not None:
                return LinearClassifier(exact[:, :-1], exact[:, -1])
            queries -= len(points)
        x = self.points(min(queries, max(queries // 4, 5 * victim.classes)), victim, means)
        y = victim.labels(x.view(-1, *victim.shape))
        model = torch.zeros(victim.classes, x.shape[1] + 1)
        for rounds_left in range(self.rounds, 0, -1):
            count = (queries - len(x)) // rounds_left
            if count:
                model = self.fit(x, y, model)
                borders = doubtful(model, self.points(count, victim, means), self.points(count, victim, means))
                x = torch.cat([x, borders])
                y = torch.cat([y, victim.labels(borders.view(-1, *victim.shape))])
        model = self.fit(x, y, model)
        return LinearClassifier(model[:, :-1], model[:, -1])

    def points(self, count: int, victim: Victim, means: Means) -> Tensor:
        """`count` starting points as rows, [count, D]."""
        if self.start is Start.held_out:
            drawn = torch.randperm(max(count, len(means.images)), generator=means.random)[:count]
            return means.images[drawn % len(means.images)].flatten(1)  # reused from the first if there are too few
        values = prod(victim.shape)
        density = torch.rand(count, 1, generator=means.random)
        bright = torch.rand(count, values, generator=means.random) < density
        return bright * torch.rand(count, values, generator=means.random)

    def fit(self, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        """The logistic regression of labels y [N] on rows x [N, D], as weights and bias [K, D + 1]."""
        model = start.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([model], max_iter=self.iterations, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = functional.cross_entropy(scores(model, x), y) + self.decay * model.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return model.detach()


def scores(model: Tensor, x: Tensor) -> Tensor:
    """Logits [N, K] of rows x [N, D] by weights and bias [K, D + 1]."""
    return functional.linear(x, model[:, :-1], model[:, -1])


@torch.no_grad()
def doubtful(model: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Where the prediction of `model` changes between each a and b, all [N, D]; near b if both are of one class."""
    label = scores(model, a).argmax(1)
    for _ in range(HALVINGS):
        middle = (a + b) / 2
        same = (scores(model, middle).argmax(1) == label)[:, None]
        a, b = torch.where(same, middle, a), torch.where(same, b, middle)
    return a
