"""The stochastic gradient ascent of attacks that learn one universal perturbation from batches of images."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.attacks.geometry import onto_ball, unit_step
from trustml_cli.attacks.losses import loss_gradient
from trustml_cli.attacks.universal_base import UniversalAttack, answers, fooled
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class UniversalLoop(UniversalAttack):
    """Each step follows the mean gradient of `objective` over a batch, with `momentum`.

    It is the gradient's sign in L∞, the normalised gradient in L2. The step size starts at `step_size` · ε and falls
    linearly to 0 over the epochs; after each step v is projected onto the ball.
    """

    batch_size: int
    step_size: float
    momentum: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "batch_size", at_least=1)
        require(self, "step_size", above=0)
        require(self, "momentum", at_least=0, below=1)

    @abstractmethod
    def objective(self, logits: Tensor, seen: Tensor, goal: int | None) -> Tensor:
        """The objective of images with predictions `seen` [N] and with these logits [N, K]; one value for each."""

    def ascend(
        self, model: nn.Module, x: Tensor, seen: Tensor, goal: int | None, v: Tensor, epsilon: float, epochs: int
    ) -> tuple[Tensor, float]:
        """Run the ascent from v [1, C, H, W]; return the v of the best epoch and its `success`."""
        best, moving, highest = v, torch.zeros_like(v), 0.0
        for epoch in range(epochs):
            size = self.step_size * epsilon * (1 - epoch / epochs)
            for rows in torch.split(torch.randperm(len(x), device=x.device), self.batch_size):
                moving = self.momentum * moving + self.uphill(model, (x[rows] + v).clamp(0, 1), seen[rows], goal)
                v = onto_ball(v + size * unit_step(moving, self.norm), epsilon, self.norm)
            rate = self.success(model, x, v, seen)
            if rate > highest:
                best, highest = v, rate
        return best, highest

    def uphill(self, model: nn.Module, shown: Tensor, seen: Tensor, goal: int | None) -> Tensor:
        """The mean input gradient [1, C, H, W] of the objective."""
        gradient = loss_gradient(model, shown, lambda logits: self.objective(logits, seen, goal))[2]
        return gradient.mean(0, keepdim=True).nan_to_num()

    def success(self, model: nn.Module, x: Tensor, v: Tensor, seen: Tensor) -> float:
        """The share of images for which x + v is classified as the target, or if there is none not as `seen` [N]."""
        if self.target is None:
            return fooled(model, x, v, seen).double().mean().item()
        return (answers(model, (x + v).clamp(0, 1)) == int(self.target)).double().mean().item()


def targets(seen: Tensor, goal: int | None) -> Tensor | None:
    """The class `goal` for each image; None if there is none."""
    return None if goal is None else torch.full_like(seen, goal)
