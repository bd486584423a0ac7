"""Free adversarial training: the gradient that teaches the network also moves the images.

Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor and Goldstein 2019, arXiv 1904.12843, algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm
from trustml_cli.defences.defence import RobustTraining
from trustml_cli.system.ranges import require
from trustml_cli.training.step import CROSS_ENTROPY, TrainingState


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
        require(self, "replays", at_least=1)

    @property
    def steps_per_batch(self) -> int:
        return self.replays

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        perturbation = state.memory.get("perturbation")  # [N, C, H, W], that of the last batch
        if perturbation is None or perturbation.shape != x.shape:
            perturbation = torch.zeros_like(x)
        for _ in range(self.replays):
            perturbation.requires_grad_(True)
            loss, logits = CROSS_ENTROPY(state, (x + perturbation).clamp(0, 1), y)
            assert perturbation.grad is not None
            direction = perturbation.grad.nan_to_num().sign()  # a loss scaled for fp16 may overflow; no move then
            perturbation = (perturbation.detach() + self.epsilon * direction).clamp(-self.epsilon, self.epsilon)
        state.memory["perturbation"] = perturbation
        return loss, logits
