"""Defensive distillation: the teacher it asks for, and its step."""

import pytest
import torch
from torch import nn

from tests.defences.test_defences import Bench
from tests.tasks.parts import MODEL, TRAINER
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.distillation import DefensiveDistillation
from trustml_cli.training.distillation import TemperedStep, soft_divergence
from trustml_cli.training.spec import TrainingSpec

DEFENCE = DefensiveDistillation(temperature=20.0)


def test_the_teacher_is_the_same_network_trained_at_the_same_temperature_from_another_seed(tiny_data: Dataset) -> None:
    spec = TrainingSpec(data=tiny_data, model=MODEL, trainer=TRAINER, seed=0, step=DEFENCE)
    (teacher,) = spec.networks.values()
    assert isinstance(teacher, TrainingSpec)
    assert teacher.step == TemperedStep(temperature=20.0)
    assert (teacher.model, teacher.trainer, teacher.data) == (spec.model, spec.trainer, spec.data)
    assert teacher.seed != spec.seed
    assert not teacher.networks


def test_the_student_learns_from_the_teacher_alone() -> None:
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    x = torch.rand(5, 1, 2, 2)
    expected = soft_divergence(student(x), teacher(x), 20.0).item()
    for labels in (torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64)):
        bench = Bench(student, lr=0.0, networks=[teacher])
        assert DEFENCE(bench, x, labels)[0].item() == pytest.approx(expected)
