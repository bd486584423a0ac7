"""SimBA: small steps along random directions of a fixed basis, kept where the probability of the class falls.

Guo, Gardner, You, Wilson and Weinberger 2019, arXiv 1905.07121.
"""

from dataclasses import dataclass
from enum import Enum
from math import ceil, pi
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Norm
from trustml_cli.attacks.attempts import AttackState, Attempt, MultiAttemptAttack
from trustml_cli.attacks.geometry import project
from trustml_cli.attacks.losses import Loss, per_image_loss
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require


class Basis(Enum):
    """The directions in which steps are taken, each of length 1 and at right angles to all others."""

    dct = "dct"
    """Waves: the discrete cosine transform of each channel."""
    pixel = "pixel"
    """Single values."""


@dataclass(frozen=True, kw_only=True)
class SimBA(MultiAttemptAttack):
    """Tries a step of ±`step_size` along one direction of `basis` after the other, in random order.

    A step is kept if it raises the log-odds against the class (or for the target), which the paper's probability gives
    too, but rounds. The image is projected into the ball after every step. Only the share `frequencies` of the
    directions along each axis is used, those of the lowest frequency; once all have been tried, they are again.

    It uses logits but no gradients: at most `queries` queries per image, only for images without success so far.

        attack = SimBA(norm=Norm.l2, target=None, queries=2000, step_size=0.2, basis=Basis.dct, frequencies=0.5)
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2,)
    access: ClassVar[Access] = Access.query

    queries: int
    step_size: float
    basis: Basis
    frequencies: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "queries", at_least=1)
        require(self, "step_size", above=0)
        require(self, "frequencies", above=0, at_most=1)
        if self.basis is Basis.pixel and self.frequencies < 1:
            raise ValueError(f"frequencies: must be 1 for basis=pixel, got {self.frequencies:g}")

    @torch.no_grad()
    def attack_remaining(self, state: AttackState, epsilon: float) -> None:
        for attempt in state.attempts(None):
            state.take(attempt, *self.run(state.model, attempt, epsilon))

    def run(self, model: nn.Module, attempt: Attempt, epsilon: float) -> tuple[Tensor, Tensor]:
        """Run the attack once; return the image found for each row of `attempt` and its margin."""
        climb = Climb(model, attempt)
        waves = [self.waves(side).to(attempt.x) for side in attempt.x.shape[2:]]
        count = attempt.x.shape[1] * len(waves[0]) * len(waves[1])
        order = torch.rand(len(attempt.x), count, device=attempt.x.device).argsort(1)
        turn = 0
        while len(rows := climb.open(self.queries)):
            x, before = attempt.x[rows], climb.found[rows]
            step = self.step_size * direction(order[rows, turn % count], waves, x.shape[1])
            useless = ~climb.take(rows, project(before + step, x, epsilon, self.norm))
            useless &= climb.spent[rows] < self.queries
            climb.take(rows[useless], project(before - step, x, epsilon, self.norm)[useless])
            turn += 1
        return climb.found, climb.margin

    def waves(self, side: int) -> Tensor:
        """The directions along one axis of `side` pixels, lowest frequency first, [k, side]."""
        if self.basis is Basis.pixel:
            return torch.eye(side)
        place, number = torch.arange(side) + 0.5, torch.arange(ceil(self.frequencies * side))
        waves: Tensor = (2 / side) ** 0.5 * torch.cos(pi / side * number[:, None] * place)
        waves[0] /= 2**0.5
        return waves


class Climb:
    """The best images found for the rows of an attempt, their margins, and the queries spent on each."""

    def __init__(self, model: nn.Module, attempt: Attempt) -> None:
        self.model, self.attempt = model, attempt
        self.found = attempt.x.clone()
        self.score = attempt.x.new_full((len(attempt.x),), -torch.inf)
        self.margin, self.spent = self.score.clone(), torch.zeros_like(attempt.y)
        self.take(torch.arange(len(attempt.x), device=attempt.x.device), attempt.x)

    def open(self, queries: int) -> Tensor:
        """The rows without success that have queries left, int64."""
        return ((self.margin <= 0) & (self.spent < queries)).nonzero()[:, 0]

    def take(self, rows: Tensor, images: Tensor) -> Tensor:
        """Ask about `images` of `rows`; keep those with a higher log-odds of the goal, and return which; bool."""
        if not len(rows):
            return torch.zeros_like(rows, dtype=torch.bool)
        logits = logits_of(self.model, images)
        y, target = self.attempt.y[rows], None if self.attempt.target is None else self.attempt.target[rows]
        score = per_image_loss(Loss.ce, y, target, above_all=True)(logits)
        better = score > self.score[rows]
        kept = rows[better]
        self.found[kept], self.score[kept] = images[better], score[better]
        self.margin[kept] = self.attempt.margin(logits, rows)[better]
        self.spent[rows] += 1
        return better


def direction(number: Tensor, waves: list[Tensor], channels: int) -> Tensor:
    """The directions with these numbers [n]: the product of a wave along each axis, in one channel; [n, C, H, W]."""
    down, across = waves
    number, column = number // len(across), number % len(across)
    channel, row = number // len(down), number % len(down)
    found = down.new_zeros(len(number), channels, down.shape[1], across.shape[1])
    found[torch.arange(len(number), device=number.device), channel] = down[row][:, :, None] * across[column][:, None]
    return found
