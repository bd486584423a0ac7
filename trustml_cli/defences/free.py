"""Free adversarial training: one backward pass updates both the weights and the perturbation.

Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor and Goldstein 2019, arXiv 1904.12843, algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.defences.defence import RobustTraining
from trustml_cli.models.classifier import Classifier
from trustml_cli.models.inference import NO_GRADIENT
from trustml_cli.system.ranges import require
from trustml_cli.training.step import CROSS_ENTROPY, TrainingState


@dataclass(frozen=True, kw_only=True)
class FreeTraining(RobustTraining):
    """Trains on each batch `replays` times in a row; each backward pass updates the weights and the perturbation.

    At each replay the perturbation δ changes by ε·sign(∇δ loss) and is clipped to [−ε, ε]. The next batch starts from
    the final δ of the last one. The optimiser steps at each replay, so the number of epochs is divided by `replays`:
    the cost equals that of standard training. The network stays in training mode, because both updates share one pass.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf,)

    replays: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "replays", at_least=1)

    def check(self, network: nn.Module) -> None:
        super().check(network)
        if isinstance(network, Classifier) and not network.rehearsal.image_gradient:
            raise ValueError(f"{NO_GRADIENT} in training mode; choose another defence")

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
            direction = perturbation.grad.nan_to_num().sign()  # NaN after an overflow of the scaled fp16 loss: no step
            perturbation = (perturbation.detach() + self.epsilon * direction).clamp(-self.epsilon, self.epsilon)
        state.memory["perturbation"] = perturbation
        return loss, logits
