"""Projected gradient descent from random starting points in the ball, with restarts.

Madry, Makelov, Schmidt, Tsipras and Vladu 2018, arXiv 1706.06083.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trustml_cli.attacks.geometry import random_start
from trustml_cli.attacks.iterative import Iterative, iterate
from trustml_cli.attacks.losses import Loss, logit_margin, loss_gradient, per_image_loss
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class PGD(Iterative):
    """`restarts` runs of `steps` ascent steps; images that have reached the goal are not attacked again.

    The runs maximise `loss`: the paper's cross-entropy, the logit margin (Carlini and Wagner 2017), or the difference
    of logits ratio. Each starts at a uniformly random point of the ball, or at x if `random_start` is False. For each
    image the run with the largest logit margin of the goal is returned.

        attack = PGD(
            norm=Norm.linf, target=None, loss=Loss.ce, steps=40, step_size=None, rel_path_length=2.5, random_start=True,
            restarts=1,
        )
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    loss: Loss
    random_start: bool
    restarts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "restarts", at_least=1)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts: from the same start all would end alike; set random_start=true")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        best = self.run(model, x, y, epsilon)
        if self.restarts == 1:
            return best
        reached = self.reached(model, best, y)
        for _ in range(self.restarts - 1):
            left = (reached <= 0).nonzero()[:, 0]
            if not len(left):
                break
            again = self.run(model, x[left], y[left], epsilon)
            now = self.reached(model, again, y[left])
            nearer = now > reached[left]
            best[left[nearer]], reached[left[nearer]] = again[nearer], now[nearer]
        return best

    def run(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        """Run the attack once."""
        start = random_start(x, epsilon, self.norm) if self.random_start else x
        uphill = partial(self.loss_gradient, model, y=y)
        return iterate(uphill, start, x, epsilon, self.norm, self.steps, self.step(epsilon))

    def loss_gradient(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of each image's `loss` with respect to the image, of x's shape."""
        if self.loss is Loss.ce:
            return super().loss_gradient(model, x, y)
        loss = per_image_loss(self.loss, y, self.goal(y), above_all=self.target is not None)
        return loss_gradient(model, x, loss)[2]

    def goal(self, y: Tensor) -> Tensor | None:
        """The target of each image, [N]; None for any wrong class."""
        return None if self.target is None else torch.full_like(y, int(self.target))

    @torch.no_grad()
    def reached(self, model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
        """The logit margin of each image's goal, [N]; above 0 if the goal is reached."""
        return logit_margin(logits_of(model, x_adv), y, self.goal(y))
