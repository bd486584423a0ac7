"""Free adversarial training: the gradient that teaches the network also moves the images.

Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor and Goldstein 2019, arXiv 1904.12843, algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.defences.defence import Learner, Lesson, RobustTraining


@dataclass(frozen=True, kw_only=True)
class FreeTraining(RobustTraining):
    """Each batch is learned from `replays` times in a row; each time one backward pass serves both sides.

    The perturbation δ moves by ε·sign(∇δ loss) at each replay, is cut to [−ε, ε], and the next batch begins with the
    one that the last batch ended with. The optimiser steps at each replay, so the epochs are divided by `replays`: the
    cost is that of plain training. The network is in training mode throughout, for there is one pass only.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf,)

    replays: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replays < 1:
            raise ValueError(f"replays: must be at least 1, got {self.replays}")

    @property
    def steps_per_batch(self) -> int:
        return self.replays

    def lessons(self, static: Sequence[nn.Module]) -> Lesson:
        return Replay(self.epsilon, self.replays)


class Replay:
    """The lesson, with the perturbation [N, C, H, W] that goes from batch to batch."""

    def __init__(self, epsilon: float, replays: int) -> None:
        self.epsilon, self.replays = epsilon, replays
        self.delta: Tensor | None = None

    def __call__(self, learner: Learner, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.delta is None or self.delta.shape != x.shape:
            self.delta = torch.zeros_like(x)
        for _ in range(self.replays):
            delta = self.delta.requires_grad_(True)
            loss, logits = learner.step((x + delta).clamp(0, 1), y)
            assert delta.grad is not None
            uphill = delta.grad.nan_to_num().sign()  # a loss scaled for fp16 may overflow; no move then
            ahead = delta.detach() + self.epsilon * uphill
            self.delta = ahead.clamp(-self.epsilon, self.epsilon)
        return loss, logits
