"""JSMA, the Jacobian-based saliency map attack: few values, changed by much, two at a time.

Papernot, McDaniel, Jha, Fredrikson, Celik and Swami 2016, arXiv 1511.07528.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.attempts import AttackState, Attempt
from trustml_cli.attacks.losses import Loss, loss_gradient, per_image_loss
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class JSMA(SmallestPerturbation):
    """Each step adds `theta` to the two values that raise the goal's probability most, until the goal is reached.

    The paper changes the pair of the largest −α·β, where α > 0 is the derivative of the goal's probability by the pair,
    and β < 0 that of the sum of the others. Probabilities sum to 1, so β = −α, and these are the two values of the
    largest derivative (with a negative `theta`: of the smallest). It is taken of the log-odds, which do not underflow.
    A value that has reached 0 or 1 is not changed again, and no more than the share `distortion` of the values is.

    It runs for each of the `targets` most likely wrong classes, and any wrong prediction is a success; the image with
    the fewest changed values is returned. With a target only that class is.

        attack = JSMA(norm=Norm.l0, target=None, theta=1.0, distortion=1.0, targets=9)
        x_adv = attack(model, x, y, epsilon=20)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l0,)

    theta: float
    distortion: float
    targets: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < abs(self.theta) <= 1:
            raise ValueError(f"theta: must be between -1 and 1 and not 0, got {self.theta:g}")
        require(self, "distortion", above=0, at_most=1)
        require(self, "targets", at_least=1)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        state = AttackState(model, x, y, None if self.target is None else int(self.target))
        left, nearest = state.left, x.clone()
        fewest = torch.full_like(state.margin, torch.inf)
        for attempt in state.attempts(self.targets):
            found, count = self.run(model, attempt)
            found, count = attempt.best(found, -count)
            closer = -count < fewest[left]
            nearest[left[closer]], fewest[left[closer]] = found[closer], -count[closer]
        return nearest

    def run(self, model: nn.Module, attempt: Attempt) -> tuple[Tensor, Tensor]:
        """Run once; return for each row the image that reached the goal, and how many values changed, ∞ if none did."""
        found, counts = attempt.x.clone(), attempt.x.new_full((len(attempt.x),), torch.inf)
        rows, x_adv = torch.arange(len(found), device=found.device), attempt.x.clone()
        while len(rows):
            y, goal = attempt.labels(rows)
            goal = attempt.target[rows] if attempt.target is not None else goal
            logits, _, slope = loss_gradient(model, x_adv, per_image_loss(Loss.ce, y, goal, above_all=True))
            flat = x_adv.flatten(1)
            changed = flat != attempt.x[rows].flatten(1)
            count = changed.sum(1)
            reached = attempt.margin(logits, rows) > 0
            found[rows[reached]], counts[rows[reached]] = x_adv[reached], count[reached].to(counts.dtype)
            limit = flat < 1 if self.theta > 0 else flat > 0
            most = int(self.distortion * flat.shape[1])
            free = limit & (changed | (count[:, None] + 2 <= most))
            goes_on = ~reached & (free.sum(1) > 1)
            rows, flat, free = rows[goes_on], flat[goes_on], free[goes_on]
            if not len(rows):
                break
            gain = self.theta * slope[goes_on].flatten(1)
            pair = gain.where(free, -torch.inf).topk(2, dim=1).indices
            moved = (flat.gather(1, pair) + self.theta).clamp(0, 1)
            x_adv = flat.scatter(1, pair, moved).view(-1, *attempt.x.shape[1:])
        return found, counts
