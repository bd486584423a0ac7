"""Knowledge distillation: a student learns the softened outputs of a teacher.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.system.ranges import require
from trustml_cli.training.step import TrainingState, TrainingStep


def soft_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(softmax(teacher/T) ‖ softmax(logits/T)), the mean over a batch in nats; both are logits [N, K].

    The gradients of the softened divergence shrink as 1/T²; the factor T² keeps their size (section 2 of the paper).
    """
    soft, learned = (values.div(temperature).log_softmax(1) for values in (teacher, logits))
    return temperature**2 * functional.kl_div(learned, soft, reduction="batchmean", log_target=True)


@dataclass(frozen=True, kw_only=True)
class DistillationStep(TrainingStep):
    """Loss: `alpha`·T²·KL(teacher ‖ student at temperature T) + (1 − `alpha`)·cross-entropy with the labels.

    The teacher is the one network in `state.networks`; it sees the same, augmented, inputs.
    """

    temperature: float
    alpha: float

    def __post_init__(self) -> None:
        require(self, "temperature", above=0)
        require(self, "alpha", at_least=0, at_most=1)

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (teacher,) = state.networks
        with torch.no_grad(), state.autocast():
            taught = teacher(x)

        def closure() -> tuple[Tensor, Tensor]:
            logits = state.network(x)
            loss = self.alpha * soft_divergence(logits, taught, self.temperature)
            if self.alpha < 1:
                loss = loss + (1 - self.alpha) * state.cross_entropy(logits, y)
            return loss, logits

        return state.step(closure)


@dataclass(frozen=True, kw_only=True)
class TemperedStep(TrainingStep):
    """One optimiser step on the cross-entropy of the labels with softmax(logits/T) at `temperature` T."""

    temperature: float

    def __post_init__(self) -> None:
        require(self, "temperature", above=0)

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        def closure() -> tuple[Tensor, Tensor]:
            logits = state.network(x)
            return state.cross_entropy(logits / self.temperature, y), logits

        return state.step(closure)
