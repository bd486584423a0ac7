"""task=conformal on digits: rows, checks, pictures, and what it refuses."""

from pathlib import Path

import pytest

from tests.helpers import Cli, facts, metrics, newest

SMALL = ("model=mlp", "trainer=smoke", "task.images=100")


def test_coverage_holds_on_clean_images_and_not_under_attack(trustml: Cli, tmp_path: Path) -> None:
    words = ("task.epsilon=0.1", "task.shift=2", "task.severity=5", "task.examples=2")
    answer = trustml("task=conformal", *SMALL, *words)
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run, keep_default_na=False)
    rows = table.set_index(["conformal", "perturbation"])
    assert set(rows.index) == {
        (method, name) for method in ("lac", "aps", "raps") for name in ("none", "pgd_10", "shift", "contrast")
    }
    for method in ("lac", "aps", "raps"):
        clean, attacked = rows.loc[method, "none"], rows.loc[method, "pgd_10"]
        assert 0.84 < clean.coverage < 0.96
        assert clean.coverage_n == 450
        assert clean.worst_class_coverage <= clean.coverage
        assert attacked.coverage_ci_high < clean.coverage_ci_low
        assert attacked.coverage_n == 100
    assert rows.set_size["aps", "pgd_10"] > rows.set_size["lac", "pgd_10"]
    assert set(table.calibration_images) == {269}
    checks = {check["name"]: check["passed"] for check in facts(run)["checks"]}
    assert checks == {f"{method} covers as many clean images as it says": True for method in ("lac", "aps", "raps")}
    assert {path.stem for path in (run / "plots").iterdir()} == {"sizes", "examples", "perturbed"}


@pytest.mark.faults
def test_a_calibrated_network_answers_with_sets_too(trustml: Cli, tmp_path: Path) -> None:
    clean = ("task.epsilon=[]", "task.shift=[]", "task.corruption=[]")
    answer = trustml(
        "task=conformal", *SMALL, *clean, "calibrator=temperature", "task.conformal=aps", "task.coverage=0.8"
    )
    assert answer.returncode == 0, answer.stderr
    (row,) = metrics(newest(tmp_path)).to_dict("records")
    assert 0.7 < row["coverage"] < 0.9
    assert row["coverage_ci_low"] < row["coverage"] < row["coverage_ci_high"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.coverage=1",), ("task.coverage", "below 1")),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml("task=conformal", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout
