"""task=calibrate on digits: rows, checks, pictures; and other tasks with a calibrator."""

from pathlib import Path

import pytest

from tests.configs import choice
from tests.helpers import Cli, facts, metrics, newest
from tests.tasks.parts import MODEL
from trustml_cli.attacks.attack import Attack
from trustml_cli.config.instantiate import build
from trustml_cli.corruptions.corruption import Corruption
from trustml_cli.corruptions.shift import Fill
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.defence import Defence
from trustml_cli.tasks.calibrate import Calibrate
from trustml_cli.tasks.context import Context

OVERFIT = ("model=mlp", "trainer=smoke", "trainer.epochs=20", "trainer.batch_size=32", "dataset.limit=300")

CLEAN = ("task.epsilon=[]", "task.shift=[]", "task.corruption=[]")


def test_calibration_holds_on_clean_images_and_not_under_perturbations(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(
        "task=calibrate", *OVERFIT, "task.epsilon=0.2", "task.shift=2", "task.severity=5", "task.images=100"
    )
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run, keep_default_na=False)
    rows = table.set_index(["calibrator", "perturbation"])
    assert list(rows.index[:4]) == [(name, "none") for name in ("none", "temperature", "vector", "isotonic")]
    assert set(table.perturbation) == {"none", "pgd_10", "shift", "contrast"}
    before, after = rows.loc["none", "none"], rows.loc["temperature", "none"]
    assert before.temperature == "1.0"
    assert float(after.temperature) > 1
    assert after.nll < before.nll
    assert after.ece < before.ece
    assert after.accuracy == before.accuracy
    assert (table[table.perturbation == "none"].ece_n == 300).all()
    assert (table[table.perturbation != "none"].ece_n == 100).all()
    for name in ("pgd_10", "shift"):
        under = rows.loc["temperature", name]
        assert under.accuracy < after.accuracy - 0.2
        assert under.ece_ci_low > after.ece_ci_high
        assert under.ece > under.ece_null_ci_high
    checks = {check["name"]: check for check in facts(run)["checks"]}
    assert checks["temperature changes no answer"]["passed"] is True
    assert checks["isotonic changes no answer"]["passed"] is None
    assert checks["the ECE of temperature is one of a perfect model"]["passed"] is True
    plots = {path.stem for path in (run / "plots").iterdir()}
    assert plots == {"perturbed", "reliability", "reliability_perturbed"}
    assert table.set_index("calibrator").loc["vector"].temperature.eq("").all()


def test_every_task_can_be_asked_for_a_calibrated_network(trustml: Cli, tmp_path: Path) -> None:
    words = (*CLEAN, "task.calibrator=[none,temperature]")
    assert trustml("task=calibrate", *OVERFIT, *words).returncode == 0
    alone = metrics(newest(tmp_path)).set_index("calibrator")
    answer = trustml("task=train", *OVERFIT, "calibrator=temperature")
    assert answer.returncode == 0, answer.stderr
    assert "training model" not in answer.stdout, "it is the network of task=calibrate"
    row = metrics(newest(tmp_path)).iloc[0]
    assert row.ece == pytest.approx(alone.ece["temperature"], abs=1e-6)
    assert row.test_accuracy == alone.accuracy["none"]
    answer = trustml("task=fgsm", *OVERFIT, "calibrator=isotonic", "task.epsilon=0", "task.check_images=0")
    assert answer.returncode == 0, answer.stderr
    assert metrics(newest(tmp_path)).mean_confidence[0] != pytest.approx(alone.mean_confidence["none"], abs=1e-3)


@pytest.mark.faults
def test_a_network_that_is_not_trained_is_calibrated_as_it_is(trustml: Cli, tmp_path: Path, cache_dir: Path) -> None:
    assert trustml("task=train", *OVERFIT).returncode == 0
    stored = next((cache_dir / "models").glob(f"{facts(newest(tmp_path))['model_key']}*/*.safetensors"))
    words = (*OVERFIT, f"model.checkpoint={stored}", *CLEAN)
    answer = trustml("task=calibrate", *words, "task.calibrator=[none,temperature]")
    assert answer.returncode == 0, answer.stderr
    assert "which it may have learned" in answer.stdout + answer.stderr
    assert list(metrics(newest(tmp_path)).calibrator) == ["none", "temperature"]
    assert set(metrics(newest(tmp_path)).accuracy) == {metrics(newest(tmp_path)).accuracy[0]}


def test_strengths_are_measured_from_the_weakest_on_and_once(context: Context, tiny_data: Dataset) -> None:
    task = Calibrate(
        images=None, epsilon=[], shift=[], fill=Fill.black, corruption=["contrast"], severity=[5, 1, 5],
        calibrator=["none"], bins=15,
    )  # fmt: skip
    contrast: Corruption = build(choice("corruption", "contrast"), "corruption")
    pgd: Attack = build(choice("attack", "pgd"), "attack")
    found = task.perturbations(context, tiny_data, MODEL, pgd, {"contrast": contrast}, Defence())
    assert list(found) == [("contrast", 1.0), ("contrast", 5.0)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.calibrator=temprature",), ("task.calibrator", "'temperature'")),
        (("task.severity=6",), ("task.severity", "5 strengths, got 6")),
        (("attack=universal",), ("attack", "no training images")),
        (("calibrators.vector.validation_images=7",), ("calibrators", "same validation_images")),
        (("dataset=census", "model=table_mlp"), ("task.shift", "need images")),
        (
            ("dataset=census", "model=table_mlp", "task.shift=[]", "task.corruption=[]"),
            ("task.epsilon", "need images", "task.epsilon=[]"),
        ),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml("task=calibrate", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout
