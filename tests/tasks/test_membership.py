"""task=membership on digits: rows, checks, pictures, and what it refuses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.system.errors import RunFailed
from trustml_cli.tasks.membership import check_claim

OVERFIT = ("model=mlp", "trainer=smoke", "trainer.epochs=25", "trainer.batch_size=32", "dataset.limit=200")


def test_networks_that_were_trained_long_on_few_images_give_them_away(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=membership", *OVERFIT, "task.inference=[loss,lira,ratio]", "task.references=[2,4]")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    rows = metrics(run)
    found = rows.set_index(["inference", "references"]).auc
    assert set(rows.columns) >= {"tpr_at_1_fpr", "tpr_at_0.1_fpr", "advantage", "epsilon_lower_bound", "auc_ci_low"}
    assert list(found["loss"].index) == [0]
    assert list(found["lira"].index) == [2, 4]
    assert found["ratio", 4] > 0.62
    assert found["ratio", 4] > found["loss", 0]
    assert set(rows.victims) == {5}
    assert set(rows.training_examples) == {100}
    assert (rows.train_accuracy > rows.test_accuracy).all()
    checks = {check["name"]: check["passed"] for check in facts(run)["checks"]}
    assert len(checks) == 3 + 2
    assert all(checks.values()), checks
    assert {path.name for path in (run / "plots").iterdir()} >= {"roc.png", "references.png", "exposed.png"}
    scores = load_file(run / "artifacts" / "scores.safetensors")
    assert scores["members"].sum(1).tolist() == [100] * 5
    assert scores["lira.4"].shape == (5, 200)


def test_the_training_images_of_a_checkpoint_are_its_members(trustml: Cli, tmp_path: Path, cache_dir: Path) -> None:
    assert trustml("task=train", *OVERFIT).returncode == 0
    stored = next((cache_dir / "models").glob(f"{facts(newest(tmp_path))['model_key']}*/*.safetensors"))
    own = (*OVERFIT, f"model.checkpoint={stored}")
    refused = trustml("task=membership", *own)
    assert refused.returncode == 2
    assert "task.members=train" in refused.stderr
    answer = trustml("task=membership", *own, "task.members=train", "task.inference=[loss,ratio]", "task.references=2",
                     "task.claim=30")  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    rows = metrics(newest(tmp_path))
    assert set(rows.victims) == {1}
    assert set(rows.auc_n) == {400}  # 200 training images and 200 test images
    assert (rows.auc_ci_low > 0.5).all()
    assert (rows.train_accuracy == 1).all()
    assert (rows.epsilon == 30).all()
    broken = trustml(
        "task=membership", *own, "task.members=train", "task.inference=ratio", "task.references=2", "task.claim=0.001"
    )
    assert broken.returncode == 1
    assert "less private than it claims" in broken.stderr


def test_the_promise_of_private_training_is_attacked(trustml: Cli, tmp_path: Path) -> None:
    private = ("trainer=dp_sgd", "model=mlp", "model.normalization=none", "trainer.epochs=2", "trainer.batch_size=32")
    words = (*private, "dataset.limit=200", "task.inference=[loss,ratio]", "task.references=2", "trainer.delta=1e-4")
    words += ("trainer.noise_seed=0",)  # one in twenty runs is beyond its interval
    answer = trustml("task=membership", *words)
    assert answer.returncode == 0, answer.stderr
    rows = metrics(newest(tmp_path))
    assert rows.epsilon.between(2.99, 3).all()
    assert (rows.auc_ci_low < 0.5).all()
    assert (rows.auc_ci_high > 0.5).all()
    checks = {check["name"]: check for check in facts(newest(tmp_path))["checks"]}
    assert checks["no attack shows a larger epsilon than claimed"]["passed"]


def test_a_broken_promise_fails_the_run() -> None:
    kept = SimpleNamespace(epsilon_lower_bound=0.4)
    told: list[tuple[object, ...]] = []
    context: Any = SimpleNamespace(record=SimpleNamespace(check=lambda *words: told.append(words)))
    check_claim(context, None, {})
    check_claim(context, 1.0, {("loss", 0): kept})  # type: ignore[dict-item]
    broken = {("loss", 0): kept, ("lira", 4): SimpleNamespace(epsilon_lower_bound=2)}
    with pytest.raises(RunFailed, match="at least 2 by lira, 1 claimed"):
        check_claim(context, 1.0, broken)  # type: ignore[arg-type]
    assert [passed for _, passed, _ in told] == [True, False]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.references=1", "task.inference=lira"), ("task.references", "lira needs at least 2")),
        (("task.inference=lyra",), ("task.inference", "'lira'")),
        (("task.pool=8",), ("task.pool", "at least 16")),
        (("dataset.limit=10",), ("task.pool", "10 images make no two halves of 8")),
        (("task.members=train", "dataset.limit=5"), ("task.pool", "at least 8 training and 8 test images")),
        (("task.claim=1",), ("task.claim", "model.checkpoint")),
        (("task.views=19",), ("task.views", "between 1 and 18")),
        (("task.views=2", "dataset=census", "model=table_mlp"), ("task.views", "only images")),
        (("defence=rectify",), ("defence",)),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml("task=membership", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout
