"""A universal perturbation, learnt by stochastic gradient ascent on batches of images.

Shafahi, Najibi, Xu, Dickerson, Davis and Goldstein 2020, arXiv 1811.11304, algorithm 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.attacks.geometry import onto_ball, unit_step
from trustml_cli.attacks.losses import logit_margin, loss_gradient
from trustml_cli.attacks.universal_base import UniversalAttack, answered, answers, fooled
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class UniversalGradient(UniversalAttack):
    """Maximises the mean logit margin of the goal over a batch, with each image's margin capped at `cap`.

    The cap (in logits) removes the gradient of images that are already fooled; the paper caps the cross-entropy for the
    same purpose. Each step follows the mean gradient with `momentum` (its sign in L∞, normalised in L2). The step size
    starts at `step_size` · ε and falls linearly to 0 over the epochs; after each step v is projected onto the ball.
    The v of the best epoch is returned.

    v starts at zero. Untargeted, each prediction is moved away from the original one; targeted, towards the target.

        attack = UniversalGradient(
            norm=Norm.linf, target=None, training_images=2000, epochs=10, batch_size=100, step_size=0.3,
            momentum=0.9, cap=2.0
        )
        x_adv = attack.fit(model, own_x, own_y)(model, x, y, epsilon=10 / 255)
    """

    batch_size: int
    step_size: float
    momentum: float
    cap: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "batch_size", at_least=1)
        require(self, "step_size", above=0)
        require(self, "momentum", at_least=0, below=1)
        require(self, "cap", above=0)

    def learn(self, model: nn.Module, x: Tensor, epsilon: float) -> Tensor:
        x, seen = answered(model, x)
        v = best = moving = torch.zeros_like(x[:1])
        highest = 0.0
        for epoch in range(self.epochs):
            size = self.step_size * epsilon * (1 - epoch / self.epochs)
            for rows in torch.split(torch.randperm(len(x), device=x.device), self.batch_size):
                moving = self.momentum * moving + self.uphill(model, (x[rows] + v).clamp(0, 1), seen[rows])
                v = onto_ball(v + size * unit_step(moving, self.norm), epsilon, self.norm)
            rate = self.success(model, x, v, seen)
            if rate > highest:
                best, highest = v, rate
        return best

    def uphill(self, model: nn.Module, shown: Tensor, seen: Tensor) -> Tensor:
        """The mean input gradient [1, C, H, W] of the capped margin."""
        goal = None if self.target is None else torch.full_like(seen, int(self.target))
        _, _, gradient = loss_gradient(
            model, shown, lambda logits: logit_margin(logits, seen, goal).clamp(max=self.cap)
        )
        return gradient.mean(0, keepdim=True).nan_to_num()

    def success(self, model: nn.Module, x: Tensor, v: Tensor, seen: Tensor) -> float:
        """The share of images for which x + v reaches the goal."""
        if self.target is None:
            return fooled(model, x, v, seen).double().mean().item()
        return (answers(model, (x + v).clamp(0, 1)) == int(self.target)).double().mean().item()
