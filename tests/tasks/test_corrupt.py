"""task=corrupt: errors relative to a baseline by hand, and rows, pictures and refusals on digits."""

from pathlib import Path

import pytest
import torch

from tests.helpers import Cli, metrics, newest
from trustml_cli.tasks.corrupt import MEAN, error_columns
from trustml_cli.training.predict import Answers

SMALL = ("model=mlp", "trainer=smoke", "task.images=150", "task.corruption=[contrast,gaussian_noise]")


def answers(right: int) -> Answers:
    """100 answers of which the first `right` are correct."""
    logits = torch.zeros(100, 2)
    logits[:, 1] = torch.where(torch.arange(100) < right, 1.0, -1.0)
    return Answers(logits, torch.ones(100, dtype=torch.long))


def test_errors_are_divided_by_those_of_the_baseline() -> None:
    results = {
        ("none", 0): [answers(90), answers(80)],
        ("fog", 1): [answers(80), answers(60)],
        ("fog", 2): [answers(60), answers(20)],
        ("snow", 1): [answers(50), answers(50)],
        ("snow", 2): [answers(50), answers(50)],
    }
    found = error_columns(results, seed=0)
    assert list(found) == ["fog", "snow", MEAN]
    assert found["fog"]["corruption_error"] == pytest.approx((20 + 40) / (40 + 80))
    assert found["snow"]["corruption_error"] == pytest.approx(1)
    assert found[MEAN]["corruption_error"] == pytest.approx(0.75)
    assert found["fog"]["relative_corruption_error"] == pytest.approx((10 + 30) / (20 + 60))
    assert found["snow"]["relative_corruption_error"] == pytest.approx(80 / 60)
    low, high = (float(found["fog"][f"corruption_error_ci_{end}"]) for end in ("low", "high"))  # type: ignore[arg-type]
    assert 0.3 < low < 0.5 < high < 0.7
    assert found["snow"]["corruption_error_ci_low"] == pytest.approx(1), "the same images are wrong for both"
    assert found["fog"]["corruption_error_n"] == 100


def test_digits_are_misread_under_corruptions(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=corrupt", *SMALL, "task.severity=[1,5]", "task.baseline=logistic", "task.examples=1")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run, keep_default_na=False)
    assert list(zip(table.corruption, table.severity, strict=True)) == [
        ("none", 0), ("mean", 1), ("mean", 5),
        ("contrast", 1), ("contrast", 5), ("gaussian_noise", 1), ("gaussian_noise", 5),
    ]  # fmt: skip
    rows = table.set_index(["corruption", "severity"])
    assert rows.accuracy["contrast", 5] < rows.accuracy["contrast", 1] <= rows.accuracy["none", 0]
    assert rows.accuracy["mean", 5] == pytest.approx(
        (rows.accuracy["contrast", 5] + rows.accuracy["gaussian_noise", 5]) / 2
    )
    assert rows.ece["mean", 1] == pytest.approx((rows.ece["contrast", 1] + rows.ece["gaussian_noise", 1]) / 2)
    assert (rows.accuracy_n == 150).all()
    wrong = 1 - rows[["accuracy", "baseline_accuracy"]].astype(float)
    ratio = wrong.loc["contrast"].sum()
    assert float(rows.corruption_error["contrast", 1]) == pytest.approx(ratio.accuracy / ratio.baseline_accuracy)
    assert rows.corruption_error["none", 0] == ""
    assert {path.stem for path in (run / "plots").iterdir()} == {"accuracy", "errors", "images_1"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.severity=6",), ("task.severity", "5 strengths, got 6")),
        (("dataset=census", "model=table_mlp"), ("dataset", "needs images")),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml("task=corrupt", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout
