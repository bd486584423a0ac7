"""task=distill: a small network that learns from a large one (Hinton et al. 2015, arXiv 1503.02531)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import DatasetSource, Split
from trustml_cli.metrics.calibration import expected_calibration_error
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, proportion
from trustml_cli.models.model import Model
from trustml_cli.plots.distillation import accuracy_over_size
from trustml_cli.system.errors import prefix_errors
from trustml_cli.system.hardware import Hardware
from trustml_cli.tasks.context import Context
from trustml_cli.training.distillation import DistillationStep
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH, Answers, predict
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.trainer import Trainer

TEACHER, DISTILLED, HARD = "teacher", "distilled", "hard_labels"
ROUNDS = 5  # timed passes over the same batch; the fastest counts


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Train `model`, then `student` on its outputs at `temperature`, and the same student on the labels alone.

    `student_trainer` trains both students; without it `trainer` does, as it does the teacher.
    `alpha` is the weight of the teacher's outputs in the loss; the labels have the rest.
    """

    columns: ClassVar[Columns] = (
        *conditions("network", "architecture"),
        *headline(higher("accuracy")),
        *logged(higher("agreement")),
        *sometimes(higher("difference_to_teacher", "difference_to_hard_labels")),
        *lower("ece"),
        *logged(neither("parameters")),
        *lower("milliseconds_per_image", "seconds"),
    )

    temperature: float
    alpha: float

    def __post_init__(self) -> None:
        self.step()  # checks the ranges

    def step(self) -> DistillationStep:
        """The training step of the distilled student."""
        return DistillationStep(temperature=self.temperature, alpha=self.alpha)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        student: Model,
        student_trainer: Trainer | None = None,
    ) -> None:
        """Write one row for each network; agreement is the share of test images with the teacher's prediction."""
        data = context.load(dataset)
        teacher = TrainingSpec(data=data, model=model, trainer=trainer, seed=context.seed)
        hard = TrainingSpec(data=data, model=student, trainer=student_trainer or trainer, seed=context.seed)
        soft = replace(hard, step=self.step(), needs={TEACHER: teacher})
        for spec, key in ((soft, "student"), (teacher, "model")):
            spec.check()
            with prefix_errors(key):
                spec.trainer.check(spec.model)
                spec.model.build(input_spec(data))
        specs = {TEACHER: teacher, DISTILLED: soft, HARD: hard}
        trained = {name: context.train_or_load(spec, stage=name) for name, spec in specs.items()}
        answers = {name: predict(each.network, data.test, context.hardware) for name, each in trained.items()}
        parameters = {
            name: sum(weight.numel() for weight in each.network.parameters()) for name, each in trained.items()
        }
        choices = context.record.choices
        for name, each in trained.items():
            context.record.metrics(
                {"network": name, "architecture": choices["model" if name == TEACHER else "model@student"]},
                **compared(answers, name),
                parameters=parameters[name],
                milliseconds_per_image=milliseconds(each.network, data.test, context.hardware),
                seconds=sum(epoch.seconds for epoch in each.history),
            )
        subject = f"{choices['model']} taught {choices['model@student']} on {choices['dataset']}"
        context.record.plot("accuracy", accuracy_over_size(answers, parameters, subject))
        context.plot_curves()


def compared(answers: Mapping[str, Answers], name: str) -> dict[str, Any]:
    """Accuracy, agreement with the teacher and ECE of a network, and its accuracy minus that of the others.

    The differences are paired: means over the same images, with Student's intervals.
    """
    own, teacher = answers[name], answers[TEACHER]
    against = {other: own.correct.double() - answers[other].correct.double() for other in (TEACHER, HARD)}
    n = len(own.labels)
    return {
        **proportion("accuracy", int(own.correct.sum()), n),
        **proportion("agreement", int((own.predicted == teacher.predicted).sum()), n),
        **(average("difference_to_teacher", against[TEACHER]) if name != TEACHER else {}),
        **(average("difference_to_hard_labels", against[HARD]) if name == DISTILLED else {}),
        "ece": expected_calibration_error(own.confidence, own.correct),
    }


@torch.no_grad()
def milliseconds(network: nn.Module, split: Split, hardware: Hardware) -> float:
    """The time of a forward pass for one image, in a batch of `BATCH`; the fastest of `ROUNDS`."""
    x, _ = next(batches(split, BATCH, hardware.device))
    took = []
    for _ in range(ROUNDS + 1):  # the first one warms up
        start = perf_counter()
        with hardware.autocast():
            float(network(x).sum())  # waits for a GPU
        took.append(perf_counter() - start)
    return 1000 * min(took[1:]) / len(x)
