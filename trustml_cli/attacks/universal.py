"""A universal perturbation, accumulated from DeepFool steps on one image after the other.

Moosavi-Dezfooli, Fawzi, Fawzi and Frossard 2017, arXiv 1610.08401, algorithm 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.deepfool import DeepFool
from trustml_cli.attacks.geometry import onto_ball
from trustml_cli.attacks.universal_base import UniversalAttack, answered, fooled
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Universal(UniversalAttack):
    """Processes the attacker's images one at a time, in random order.

    If the predictions for x + v and x agree, L2 DeepFool (`steps`, `candidates`, `overshoot`) computes the smallest
    step that changes the prediction; the step is added to v, and v is projected onto the ball. Training ends once the
    fooling rate reaches 1 − `delta`; the v of the best epoch is returned. It has no targeted form.

        attack = Universal(
            norm=Norm.linf, target=None, training_images=1000, epochs=5, delta=0.05, steps=10, candidates=10,
            overshoot=0.02
        )
        x_adv = attack.fit(model, own_x, own_y)(model, x, y, epsilon=10 / 255)
    """

    delta: float
    steps: int
    candidates: int
    overshoot: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "delta", at_least=0, below=1)
        self.step()

    def step(self) -> DeepFool:
        """The attack that changes the prediction for one image. Raises ValueError if it rejects a parameter."""
        return DeepFool(
            norm=Norm.l2, target=self.target, steps=self.steps, candidates=self.candidates, overshoot=self.overshoot
        )

    def learn(self, model: nn.Module, x: Tensor, epsilon: float) -> Tensor:
        x, seen = answered(model, x)
        step = self.step()
        v = best = torch.zeros_like(x[:1])
        highest = 0.0
        for _ in range(self.epochs):
            for index in torch.randperm(len(x)).tolist():
                own = slice(index, index + 1)
                shown = (x[own] + v).clamp(0, 1)
                v = onto_ball(v + step.smallest(model, shown, seen[own]) - shown, epsilon, self.norm)
            rate = fooled(model, x, v, seen).double().mean().item()
            if rate > highest:
                best, highest = v, rate
            if highest >= 1 - self.delta:
                break
        return best
