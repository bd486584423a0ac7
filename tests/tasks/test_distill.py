"""task=distill: teacher, distilled student and student of the labels side by side."""

from pathlib import Path

import pandas
import pytest
import torch

from tests.helpers import Cli, metrics, newest
from trustml_cli.tasks.distill import compared
from trustml_cli.training.predict import Answers


def test_differences_are_paired_and_agreement_is_with_the_teacher() -> None:
    labels = torch.tensor([0, 0, 1, 1])

    def said(*predicted: int) -> Answers:
        return Answers(10 * torch.eye(3)[list(predicted)], labels)

    answers = {"teacher": said(0, 0, 1, 2), "distilled": said(0, 2, 1, 2), "hard_labels": said(2, 2, 2, 1)}
    row = compared(answers, "distilled")
    assert (row["accuracy"], row["agreement"]) == (0.5, 0.75)
    assert (row["difference_to_teacher"], row["difference_to_teacher_n"]) == (-0.25, 4)
    assert row["difference_to_hard_labels"] == 0.25
    assert row["difference_to_teacher_ci_low"] == pytest.approx(-0.25 - 3.182446 * 0.5 / 2, abs=1e-5)  # Student, 3
    assert row["ece"] == pytest.approx(0.5, abs=1e-3)
    assert "difference_to_teacher" not in compared(answers, "teacher")


def test_a_small_student_comes_near_its_teacher_and_says_what_it_costs(trustml: Cli, tmp_path: Path) -> None:
    words = [
        "task=distill",
        "model=mlp",
        "model@student=mlp",
        "student.hidden=[16]",
        "trainer=smoke",
        "trainer.epochs=7",
        "trainer@student_trainer=smoke",
        "student_trainer.epochs=8",
    ]
    answer = trustml(*words)
    assert answer.returncode == 0, answer.stderr
    table = metrics(newest(tmp_path)).set_index("network")
    assert list(table.index) == ["teacher", "distilled", "hard_labels"]
    assert (table.agreement.teacher, table.parameters.distilled) == (1.0, 64 * 16 + 16 + 160 + 10)
    assert table.accuracy.teacher > 0.9
    assert table.agreement.distilled > 0.75
    assert table.accuracy.distilled != table.accuracy.hard_labels
    assert (table.milliseconds_per_image > 0).all()
    epochs = pandas.read_csv(newest(tmp_path) / "history.csv").groupby("network").epoch.max()
    assert dict(epochs) == {"teacher": 7, "distilled": 8, "hard_labels": 8}
    history = (newest(tmp_path) / "history.csv").read_text()
    assert all(f"\n{name}," in history or f",{name}," in history for name in table.index)
