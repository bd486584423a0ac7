"""Iterative attack until a wrong class has high confidence, with optional constraints on the perturbation.

The step is that of Goodfellow et al. 2015 (arXiv 1412.6572). The binary perturbation is trained with the
straight-through estimator that Hubara et al. 2016 (arXiv 1602.02830) use for binarised networks.
"""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm, input_gradient
from trustml_cli.attacks.geometry import normalised
from trustml_cli.attacks.losses import likeliest_wrong, of
from trustml_cli.models.binary import Sign
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Confident(Attack):
    """x ← x + `step_size`·sign(∇) until a wrong class (or the target) has `confidence`, or for `steps` steps.

    ∇ points towards the target, or towards the most likely wrong class at each step. An image that has reached the
    confidence is not changed further. With `nothing_erased` no value may decrease. With `binary` each value is raised
    by ε or not at all (never beyond 1), by the sign of a latent score. The score starts below zero and is updated by
    the straight-through gradient, scaled to a largest absolute value of `step_size`.

        attack = Confident(
            norm=Norm.linf, target=None, confidence=0.9, steps=100, step_size=0.01, nothing_erased=True, binary=False
        )
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar = (Norm.linf,)

    confidence: float
    steps: int
    step_size: float
    nothing_erased: bool
    binary: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "confidence", above=0, below=1)
        require(self, "steps", at_least=1)
        require(self, "step_size", above=0, at_most=1)

    def ball(self, x: Tensor, epsilon: float) -> tuple[Tensor, float] | None:
        if self.binary:
            return None
        return (x + epsilon / 2, epsilon / 2) if self.nothing_erased else (x, epsilon)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        x_adv, score = x.clone(), torch.full_like(x, -self.step_size)
        left = torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            goal, arrived = self.goal(model, x_adv[left], y[left])
            left, goal = left[~arrived], goal[~arrived]
            if not len(left):
                break
            downhill = -input_gradient(model, x_adv[left], goal)
            if self.binary:
                score[left] = self.followed(score[left], downhill)
                x_adv[left] = self.painted(x[left], score[left], epsilon)
            else:
                lowest = x[left] if self.nothing_erased else (x[left] - epsilon).clamp(min=0)
                moved = x_adv[left] + self.step_size * downhill.sign()
                x_adv[left] = moved.clamp(lowest, (x[left] + epsilon).clamp(max=1))
        return x_adv

    @torch.no_grad()
    def goal(self, model: nn.Module, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The goal class and whether its probability is at least `confidence`, both [N]."""
        logits = logits_of(model, x_adv)
        goal = likeliest_wrong(logits, y, 1)[:, 0] if self.target is None else torch.full_like(y, int(self.target))
        return goal, of(logits.softmax(1), goal) >= self.confidence

    def followed(self, score: Tensor, direction: Tensor) -> Tensor:
        """The latent score after a step; the straight-through gradient is zero beyond ±1."""
        with torch.enable_grad():
            leaf = score.detach().requires_grad_(True)
            (passed,) = torch.autograd.grad(Sign()(leaf), leaf, direction)
        return (score + self.step_size * normalised(passed, inf)).clamp(-1, 1)

    def painted(self, x: Tensor, score: Tensor, epsilon: float) -> Tensor:
        """The images x with ε added where the score is positive and x + ε ≤ 1."""
        return torch.where((score > 0) & (x + epsilon <= 1), x + epsilon, x)
