"""task=invert on digits: rows, the table of classes, pictures, and what it refuses."""

from pathlib import Path

import pandas
import pytest
from safetensors.torch import load_file

from tests.helpers import Cli, facts, metrics, newest

SMALL = ("task=invert", "trainer=smoke", "trainer.epochs=6", "task.starts=3", "task.pool=200")


def test_classes_are_reconstructed_from_the_network_alone_and_from_hints(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(*SMALL, "task.steps=60", "task.lr=0.05")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    rows = metrics(run).set_index("given")
    assert list(rows.index) == ["none", "blurred", "partial"]
    none = rows.loc["none"]
    assert (none.recognised_rate_n, none.recognised_classes_rate_n, none.distance_difference_n) == (30, 10, 10)
    assert none.recognised_rate > 0.7
    assert none.confidence > 0.7
    assert none.correlation_class_average > 0.2
    assert none.distance_difference == pytest.approx(none.distance_test - none.distance_train)
    assert rows.loc["blurred"].rmse_without_network < rows.loc["blurred"].rmse_given
    assert rows.loc["partial"].rmse_train > rows.loc["blurred"].rmse_train
    assert abs(rows.judge_accuracy - rows.network_accuracy).max() < 0.1
    assert {path.stem for path in (run / "plots").iterdir()} == {"none", "blurred", "partial"}
    classes = pandas.read_csv(run / "classes.csv")
    assert len(classes) == 10
    assert set(classes.closest_to) <= {"the class average", "a training image", "a test image"}
    remark = next(each for each in facts(run)["remarks"] if each.startswith("given=none"))
    assert f"{none.correlation_class_average:.2f} with the average of their class" in remark
    saved = load_file(run / "artifacts" / "none.safetensors")
    assert saved["reconstructed"].shape == (30, 1, 8, 8)
    assert facts(run)["checks"][0]["passed"]


def test_a_checkpoint_is_attacked_as_it_is(trustml: Cli, tmp_path: Path, cache_dir: Path) -> None:
    assert trustml("task=train", "model=mlp", "trainer=smoke").returncode == 0
    stored = next((cache_dir / "models").glob(f"{facts(newest(tmp_path))['model_key']}*/*.safetensors"))
    words = (*SMALL, "task.steps=2", "task.given=none", "task.target=[3,5]", f"model.checkpoint={stored}")
    answer = trustml(*words)
    assert answer.returncode == 0, answer.stderr
    assert metrics(newest(tmp_path)).recognised_rate_n[0] == 6
    assert facts(newest(tmp_path))["checks"][0]["passed"] is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.given=[]",), ("task.given", "none, blurred, partial")),
        (("task.given=half",), ("task.given", "blurred")),
        (("task.target=11",), ("task.target", "no class 11")),
        (("task.lr=0",), ("task.lr", "above 0")),
        (("dataset=census", "model=table_mlp"), ("dataset", "no images")),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml(*SMALL, *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout
