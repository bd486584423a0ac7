"""Training with a defence through the command line: what it brings, and what the checks say of it."""

import json
from pathlib import Path

import pandas
import pytest

from tests.helpers import Cli


def newest(tmp_path: Path) -> tuple[pandas.DataFrame, dict[str, str]]:
    run = max(tmp_path.glob("outputs/*/*/run.json"), key=lambda path: path.stat().st_mtime_ns).parent
    return pandas.read_csv(run / "metrics.csv"), json.loads((run / "run.json").read_text())


def test_a_defence_is_held_against_none_and_every_other_task_finds_its_network_again(
    trustml: Cli, tmp_path: Path
) -> None:
    defended = ["defence.epsilon=0.15", "defence.steps=5", "trainer.epochs=4", "task.check_images=0"]
    answer = trustml("task=robust_train", *defended, "task.epsilon=[0.05,0.15]", "task.images=200")
    assert answer.returncode == 0, answer.stderr
    table, ended = newest(tmp_path)
    assert list(table.columns[4:8]) == ["defence", "attack", "norm", "epsilon"]
    rows = table.set_index(["defence", "epsilon"])
    assert list(rows.index) == [("none", 0.05), ("none", 0.15), ("pgd", 0.05), ("pgd", 0.15)]
    assert rows.robust_accuracy["pgd", 0.15] > rows.robust_accuracy["none", 0.15] + 0.2
    assert (rows.robust_accuracy_n == 200).all()
    history = pandas.read_csv(next(tmp_path.rglob("history.csv")))
    assert list(history.stage) == ["none"] * 4 + ["pgd"] * 4
    assert history.train_robust_accuracy.isna().tolist() == [True] * 4 + [False] * 4

    words = ["task=attack", "defence=pgd", *defended, "task.epsilon=0.15", "task.images=200", "task.surfaces=0"]
    answer = trustml(*words)
    assert "training model" not in answer.stdout
    attacked, again = newest(tmp_path)
    assert again["model_key"] == ended["model_key"]
    assert attacked.defence[0] == "pgd"
    assert attacked.robust_accuracy[0] == pytest.approx(rows.robust_accuracy["pgd", 0.15], abs=0.03)  # another start


@pytest.mark.parametrize("task", ["backdoor", "explain", "fgsm", "ood", "steal", "train"])
def test_a_defended_network_is_what_the_other_tasks_ask_too(task: str, trustml: Cli, tmp_path: Path) -> None:
    own = {"explain": ["task.explainer=saliency"], "ood": ["task.score=msp"], "steal": ["task.method=linear_logits"]}
    keys = set()
    for defence in ("none", "free"):
        answer = trustml(f"task={task}", "trainer=smoke", f"defence={defence}", *own.get(task, []))
        assert answer.returncode == 0, answer.stderr
        keys.add(newest(tmp_path)[1]["model_key"])
    assert len(keys) == 2
    attacked = pandas.read_csv(max(tmp_path.glob("outputs/*/*/history.csv"), key=lambda path: path.stat().st_mtime_ns))
    assert attacked.train_robust_accuracy.notna().all()


@pytest.mark.data
def test_fgsm_training_on_mnist_masks_its_gradients_and_the_checks_say_so(
    trustml: Cli, tmp_path: Path, data_dir: Path
) -> None:
    words = ["experiment=robust_mnist_fgsm", f"data_dir={data_dir}", "task.images=200"]
    rows, verdicts = {}, {}
    for attack in ("fgsm", "rfgsm", "pgd"):
        answer = trustml(*words, f"attack={attack}")
        assert answer.returncode == 0, answer.stderr
        table, ended = newest(tmp_path)
        rows[attack], verdicts[attack] = table.robust_accuracy[0], ended["verdict"]
    assert rows["fgsm"] > 0.8
    assert rows["rfgsm"] < rows["fgsm"] - 0.3
    assert rows["pgd"] < 0.1
    assert "gradient masking" in verdicts["fgsm"]


@pytest.mark.data
def test_fast_training_resists_a_smaller_budget_on_mnist_and_is_believed(
    trustml: Cli, tmp_path: Path, data_dir: Path
) -> None:
    words = ["task=robust_train", "defence=fast", "model=mnist_cnn", "dataset=mnist", f"data_dir={data_dir}"]
    few = ["trainer.epochs=2", "trainer.steps_per_epoch=100", "task.images=200", "task.check_images=50"]
    answer = trustml(*words, *few)
    assert answer.returncode == 0, answer.stderr
    table, ended = newest(tmp_path)
    assert table.robust_accuracy[1] > max(0.85, table.robust_accuracy[0] + 0.1)
    assert ended["verdict"] == "trustworthy"
