"""Defensive distillation: a network trained on the softened outputs of another of the same architecture.

Papernot, McDaniel, Wu, Jha and Swami 2016, "Distillation as a Defense to Adversarial Perturbations against Deep Neural
Networks", arXiv 1511.04508. Broken by Carlini and Wagner 2016, arXiv 1607.04311.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from trustml_cli.defences.defence import Defence
from trustml_cli.training.distillation import DistillationStep, TemperedStep
from trustml_cli.training.step import TrainingState, TrainingStep

if TYPE_CHECKING:
    from trustml_cli.training.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class DefensiveDistillation(Defence, TrainingStep):
    """Teacher and student are trained at `temperature` T, the student on the teacher's outputs alone.

    Training divides the logits by T; the network answers without that, at T = 1. Its logits are therefore about T times
    as large as usual, and the gradient of its cross-entropy rounds to zero in float32. That stops only attacks that
    follow this gradient as it is computed.
    """

    temperature: float

    def __post_init__(self) -> None:
        self.student()  # checks the range

    def student(self) -> DistillationStep:
        """The training step of the student."""
        return DistillationStep(temperature=self.temperature, alpha=1.0)

    def needs(self, spec: "TrainingSpec") -> "dict[str, TrainingSpec]":
        tempered = TemperedStep(temperature=self.temperature)
        return {
            f"teacher at {self.temperature:g}": replace(spec, step=tempered, needs={}, seed=spec.seed_for("teacher", 1))
        }

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.student()(state, x, y)
