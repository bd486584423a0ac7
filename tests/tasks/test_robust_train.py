"""Training with a defence through the command line: what it brings, and what the checks say of it."""

import json
from pathlib import Path

import pandas
import pytest

from tests.helpers import Cli, facts, metrics, newest


def test_a_defence_is_held_against_none_and_every_other_task_finds_its_network_again(
    trustml: Cli, tmp_path: Path
) -> None:
    defended = ["model=mlp", "trainer=smoke", "trainer.epochs=4", "defence.epsilon=0.15", "defence.steps=3"]
    few = ["task.check_images=0", "task.images=200", "task.surfaces=0"]
    answer = trustml("task=robust_train", *defended, *few, "task.epsilon=[0.05,0.15]")
    assert answer.returncode == 0, answer.stderr
    trained = newest(tmp_path)
    table = metrics(trained)
    assert list(table.columns[4:8]) == ["defence", "attack", "norm", "epsilon"]
    rows = table.set_index(["defence", "epsilon"])
    assert list(rows.index) == [("none", 0.05), ("none", 0.15), ("pgd", 0.05), ("pgd", 0.15)]
    assert rows.robust_accuracy["pgd", 0.15] > rows.robust_accuracy["none", 0.15] + 0.2
    assert (rows.robust_accuracy_n == 200).all()
    history = pandas.read_csv(trained / "history.csv")
    assert list(history.network) == ["none"] * 4 + ["pgd"] * 4
    assert history.train_robust_accuracy.isna().tolist() == [True] * 4 + [False] * 4

    answer = trustml("task=attack", "defence=pgd", *defended, *few, "task.epsilon=0.15")
    assert "training model" not in answer.stdout
    attacked = newest(tmp_path)
    assert facts(attacked)["model_key"] == facts(trained)["model_key"]
    (row,) = metrics(attacked).itertuples()
    assert row.defence == "pgd"
    assert row.robust_accuracy == pytest.approx(rows.robust_accuracy["pgd", 0.15], abs=0.03)  # another start


@pytest.mark.parametrize(("images", "told"), [(20, True), (0, False)])
def test_where_one_step_masks_nothing_it_is_said_which_command_shows_masking(
    images: int, told: bool, trustml: Cli, tmp_path: Path
) -> None:
    small = ["model=logistic", "trainer=smoke", "task.baseline=false", "task.images=20", "task.surfaces=0"]
    answer = trustml("task=robust_train", "defence=fgsm", *small, f"task.check_images={images}")
    assert answer.returncode == 0, answer.stderr
    run = facts(newest(tmp_path))
    assert "masking" not in run["verdict"]
    assert any("experiment=robust_mnist_fgsm" in text for text in run.get("remarks", [])) == told


QUICK = {
    "backdoor": ["model=mlp"],
    "explain": ["model=mlp", "task.explainer=saliency", "task.images=5"],
    "fgsm": ["model=mlp", "task.check_images=0", "task.images=40"],
    "credibility": ["model=mlp", "task.images=20", "task.adaptive_steps=1", "task.layers=1"],
    "ood": ["model=mlp", "task.score=msp"],
    "steal": ["model=logistic", "task.method=linear_logits"],
    "train": ["model=mlp"],
}

LONG = ("backdoor", "credibility", "steal")


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[pytest.mark.faults] if task in LONG else []) for task in QUICK]
)
def test_a_defended_network_is_what_the_other_tasks_ask_too(
    task: str, trustml: Cli, tmp_path: Path, cache_dir: Path
) -> None:
    answer = trustml(f"task={task}", "trainer=smoke", "trainer.steps_per_epoch=5", "defence=free", *QUICK[task])
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    stored = json.loads((cache_dir / "models" / facts(run)["model_key"] / "model.json").read_text())
    assert stored["recipe"]["step"]["is"] == "trustml_cli.defences.free.FreeTraining"
    assert pandas.read_csv(run / "history.csv").train_robust_accuracy.notna().all()


def test_a_network_of_the_user_s_is_hardened_where_training_goes_on_from_it(
    trustml: Cli, tmp_path: Path, cache_dir: Path
) -> None:
    short = ["model=mlp", "trainer=smoke", "trainer.epochs=2", "trainer.steps_per_epoch=8"]
    assert trustml("task=train", *short).returncode == 0
    own = cache_dir / "models" / facts(newest(tmp_path))["model_key"] / "model.safetensors"
    words = [*short, "defence=fgsm", "defence.monitor_images=20", f"model.checkpoint={own}"]
    answer = trustml("task=train", *words)
    assert answer.returncode == 2
    assert "model.train=true" in answer.stderr
    answer = trustml("task=train", *words, "model.train=true", "trainer.lr=1e-6")
    assert answer.returncode == 0, answer.stderr
    assert not facts(newest(tmp_path))["model_key"].startswith("checkpoint")
    assert metrics(newest(tmp_path)).test_accuracy[0] > 0.5, "it begins where the other training ended"


@pytest.mark.data
def test_fgsm_training_on_mnist_masks_its_gradients_and_the_checks_say_so(
    trustml: Cli, tmp_path: Path, data_dir: Path
) -> None:
    words = ["experiment=robust_mnist_fgsm", f"data_dir={data_dir}", "task.images=200"]
    rows, verdicts = {}, {}
    for attack in ("fgsm", "rfgsm", "pgd"):
        answer = trustml(*words, f"attack={attack}")
        assert answer.returncode == 0, answer.stderr
        rows[attack] = metrics(newest(tmp_path)).robust_accuracy[0]
        verdicts[attack] = facts(newest(tmp_path))["verdict"]
    assert rows["fgsm"] > 0.8
    assert rows["rfgsm"] < rows["fgsm"] - 0.3
    assert rows["pgd"] < 0.1
    assert "gradient masking" in verdicts["fgsm"]


@pytest.mark.data
def test_fast_training_resists_a_smaller_budget_on_mnist_without_masking(
    trustml: Cli, tmp_path: Path, data_dir: Path
) -> None:
    words = ["task=robust_train", "defence=fast", "model=mnist_cnn", "dataset=mnist", f"data_dir={data_dir}"]
    few = ["trainer.epochs=2", "trainer.steps_per_epoch=100", "task.images=320"]
    answer = trustml(*words, *few)
    assert answer.returncode == 0, answer.stderr
    undefended, defended = metrics(newest(tmp_path)).robust_accuracy
    assert defended > max(0.85, undefended + 0.1)
    assert "gradient masking" not in facts(newest(tmp_path))["verdict"]
