"""task=pate on digits: the row, checks, pictures, and what it refuses."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.tasks.pate import exposure, membership
from trustml_cli.training.predict import Answers

SMALL = ("task=pate", "trainer=smoke", "task.teachers=20", "task.queries=120", "task.threshold=10", "task.sigma1=3",
         "task.sigma2=2", "trainer.epochs=8", "model.normalization=none", "trainer.lr=0.05")  # fmt: skip


@pytest.mark.parametrize("student", ["supervised", "semi_supervised"])
def test_a_student_learns_from_the_noisy_vote(student: str, trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(*SMALL, f"task.student={student}", "task.noise_seed=3", "task.answers=60", "student.hidden=[64]")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    row = metrics(run).iloc[0]
    assert (row.teachers, row.images_per_teacher, row.public_images, row.asked <= 120) == (20, 67, 225, True)
    assert (row.answers, row.answer_accuracy_n) == (60, 60)
    assert row.student_accuracy_n == 225
    assert row.answer_accuracy > 0.8
    assert row.vote_accuracy > row.teacher_accuracy > 0.5
    assert row.student_accuracy > 0.6
    assert 0 < row.epsilon_data_dependent < row.epsilon
    assert row.membership_auc_ci_low < 0.5 + 0.05
    assert 0 <= row.epsilon_lower_bound < row.epsilon
    assert row.membership_auc_n == row.nonprivate_membership_auc_n == 450
    assert bool(row.rehearsal)
    checks = {check["name"]: check for check in facts(run)["checks"]}
    assert (
        "task.noise_seed=3: a rehearsal"
        in checks["noise comes from the operating system and is not recorded"]["figure"]
    )
    assert checks["the student shows no larger epsilon than claimed"]["passed"]
    assert checks["no image is in the parts of two teachers"]["passed"]
    assert any("secret_votes" in remark for remark in facts(run)["remarks"])
    assert {path.stem for path in (run / "plots").iterdir()} == {"votes", "epsilon"}
    votes = load_file(run / "artifacts" / "secret_votes.safetensors")["votes"]
    answers = load_file(run / "artifacts" / "answers.safetensors")["answers"]
    assert set(votes.sum(1).tolist()) == {20}
    assert (answers >= 0).sum() == 60
    assert votes[answers >= 0].amax(1).double().mean() > votes[answers < 0].amax(1).double().mean()


def test_noise_of_the_system_differs_from_run_to_run_and_a_large_delta_is_warned_of(
    trustml: Cli, tmp_path: Path
) -> None:
    given = []
    for _ in range(2):
        answer = trustml(*SMALL, "task.student=supervised", "task.delta=0.01", "trainer.epochs=1")
        assert answer.returncode == 0, answer.stderr
        given.append(load_file(newest(tmp_path) / "artifacts" / "answers.safetensors")["answers"].tolist())
    assert given[0] != given[1]
    assert not metrics(newest(tmp_path)).rehearsal[0]
    assert "task.delta: 0.01 is not below 1 over the 1,347 training images" in facts(newest(tmp_path))["remarks"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.teachers=2000",), ("task.teachers", "1347 training images make no 2000 parts")),
        (("task.threshold=21",), ("task.threshold", "20 teachers")),
        (("task.queries=226",), ("task.queries", "225 of the test images are public")),
        (("task.sigma2=0",), ("task.sigma2", "above 0")),
        (("task.delta=1",), ("task.delta", "below 1")),
        (("task.release_order=70",), ("task.release_order", "2 to 63")),
        (("dataset=census", "model=table_mlp", "model@student=table_mlp"), ("task.student", "use supervised")),
        (("trainer.patience=2",), ("task.student", "trainer.patience=null")),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml(*SMALL, *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout


def test_memory_is_told_from_its_absence() -> None:
    labels = torch.arange(400) % 2
    sure = 3.0 * torch.nn.functional.one_hot(labels, 2)
    inside, outside = Answers(sure, labels), Answers(0 * sure, labels)
    assert membership(inside, outside, seed=0).values["auc"] == 1
    assert membership(inside, outside, seed=0).epsilon_lower_bound > 3
    assert membership(inside, inside, seed=0).values["auc"] == 0.5
    assert exposure(membership(inside, inside, seed=0), "nonprivate_")["nonprivate_membership_auc_n"] == 800
