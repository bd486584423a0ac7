"""The transfer matrix of perturbations that fit all images, through the command line."""

import json
from pathlib import Path

import pandas
import pytest
from safetensors.torch import load_file

from tests.helpers import Cli


def test_each_perturbation_is_scored_on_every_model_beside_noise(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=universal", "trainer=smoke", "model=mlp", "task.models=[mlp,logistic]", "task.epsilon=[0.3,0]"]
    answer = trustml(*words)
    assert answer.returncode == 0, answer.stderr
    (run,) = (path.parent for path in tmp_path.rglob("metrics.csv"))
    table = pandas.read_csv(run / "metrics.csv")
    assert [tuple(row) for row in table[["found_on", "scored_on", "epsilon"]].to_numpy()] == [
        (found, scored, epsilon)
        for found in ("mlp", "logistic")
        for epsilon in (0.0, 0.3)
        for scored in ("mlp", "logistic")
    ]
    nothing, learnt = table[table.epsilon == 0], table[table.epsilon == 0.3].set_index(["found_on", "scored_on"])
    assert (nothing.fooling_rate == 0).all()
    assert (nothing.robust_accuracy == nothing.clean_accuracy).all()
    for name in ("mlp", "logistic"):
        row = learnt.loc[name, name]
        assert row.fooling_rate > 0.5
        assert row.fooling_rate > row.noise_fooling_rate + 0.3
        assert row.robust_accuracy < row.clean_accuracy - 0.3
        assert row.fooling_rate_n == 450
    assert (learnt["size"] <= 0.3 + 1e-6).all()
    assert (learnt.fooling_rate > learnt.noise_fooling_rate).all()  # they carry to the other model
    kept = load_file(run / "artifacts" / "perturbations.safetensors")
    assert kept["mlp_epsilon_0.3"].abs().amax().item() == pytest.approx(0.3)
    facts = json.loads((run / "run.json").read_text())
    assert [check["passed"] for check in facts["checks"]] == [True, True]
    assert facts["learning_gradients"]["mlp"] == 10 * 1000  # epochs times images


def test_what_an_attack_asked_while_learning_is_told(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=attack", "attack=universal_gradient", "trainer=smoke", "model=mlp", "task.epsilon=0.3"]
    answer = trustml(*words, "attack.images=500", "attack.epochs=4", "task.surfaces=0")
    assert answer.returncode == 0, answer.stderr
    (file,) = tmp_path.rglob("run.json")
    facts = json.loads(file.read_text())
    assert facts["learning_gradients"] == 4 * 500
    checks = {check["name"]: check["passed"] for check in facts["checks"]}
    assert checks["the attack is stronger than random noise"] is True
    assert checks["a common iterative attack is not stronger"] is False
    assert facts["verdict"].startswith("not trustworthy: too weak an attack (failed: a common iterative")
    assert "masking" not in facts["verdict"]


def test_a_substitute_tells_how_many_labels_it_asked_for(trustml: Cli, tmp_path: Path) -> None:
    words = [
        "task=attack",
        "attack=substitute",
        "trainer=smoke",
        "model=mlp",
        "task.epsilon=0.3",
        "task.check_images=0",
    ]
    answer = trustml(*words, "attack.images=100", "attack.rounds=2", "task.surfaces=0")
    assert answer.returncode == 0, answer.stderr
    (file,) = tmp_path.rglob("run.json")
    facts = json.loads(file.read_text())
    assert (facts["learning_queries"], facts["learning_gradients"]) == (400 + 1, 0)
    row = pandas.read_csv(file.parent / "metrics.csv").iloc[0]
    assert row.queries == row.gradients == 0
    assert row.robust_accuracy < row.clean_accuracy - 0.3


@pytest.mark.data
def test_one_perturbation_fools_many_cifar_images(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["dataset.limit=1000", "trainer.epochs=4", "task.models=null", "attack.images=300"]
    answer = trustml("experiment=universal_cifar", f"data_dir={data_dir}", *short)
    assert answer.returncode == 0, answer.stderr
    (table,) = tmp_path.rglob("metrics.csv")
    row = pandas.read_csv(table).iloc[0]
    assert row.fooling_rate > row.noise_fooling_rate + 0.15
