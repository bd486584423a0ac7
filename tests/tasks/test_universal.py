"""The transfer matrix of perturbations that fit all images, through the command line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.configs import choice
from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.attacks.universal_base import TransferResult, UniversalAttack
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.universal import scored


def test_each_perturbation_is_scored_on_every_model_beside_noise(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=universal", "trainer=smoke", "model=mlp", "task.models=[mlp,logistic]", "task.epsilon=[0.3,0]"]
    answer = trustml(*words, "attack.training_images=400", "attack.epochs=5", "task.examples=1")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run)
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
        assert row.own_fooling_rate_n == 400
        assert row.own_fooling_rate_ci_low < row.own_fooling_rate < row.own_fooling_rate_ci_high
    assert (learnt["size"] <= 0.3 + 1e-6).all()
    assert (learnt.fooling_rate > learnt.noise_fooling_rate).all()  # they carry to the other model
    kept = load_file(run / "artifacts" / "perturbations.safetensors")
    assert kept["mlp_epsilon_0.3"].abs().amax().item() == pytest.approx(0.3)
    assert [check["passed"] for check in facts(run)["checks"]] == [True, True]
    assert facts(run)["learning_gradients"]["mlp"] == 5 * 400  # epochs times images


def test_what_an_attack_asked_while_learning_is_told(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=attack", "attack=universal_gradient", "trainer=smoke", "model=mlp", "task.epsilon=0.3"]
    few = ["attack.training_images=300", "task.surfaces=0", "task.check_images=50", "task.examples=1"]
    answer = trustml(*words, "attack.epochs=4", *few)
    assert answer.returncode == 0, answer.stderr
    found = facts(newest(tmp_path))
    assert found["learning_gradients"] == 4 * 300
    checks = {check["name"]: check["passed"] for check in found["checks"]}
    assert checks["the attack is stronger than random noise"] is True
    assert checks["a common iterative attack is not stronger"] is False
    assert found["verdict"].startswith("not trustworthy: too weak an attack (failed: an attack without gradients")
    assert "masking" not in found["verdict"]


def test_a_substitute_tells_how_many_labels_it_asked_for(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=attack", "attack=substitute", "trainer=smoke", "model=mlp", "task.epsilon=0.3"]
    few = [
        "attack.training_images=100",
        "attack.substitutes=1",
        "task.surfaces=0",
        "task.check_images=0",
        "task.examples=1",
    ]
    answer = trustml(*words, *few)
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    assert (facts(run)["learning_queries"], facts(run)["learning_gradients"]) == (200 + 1, 0)
    row = metrics(run).iloc[0]
    assert row.queries == row.gradients == 0
    assert row.robust_accuracy < row.clean_accuracy - 0.3
    assert trustml("task=fgsm", *words[2:], *few[2:]).returncode == 0
    assert row.white_box_success_rate == metrics(newest(tmp_path)).iloc[0].attack_success_rate > 0.5


class Blinded(nn.Module):
    """Answers the first class, and NaN to white images."""

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(x), 1)
        return logits.where(x.flatten(1).amin(1, keepdim=True) < 1, torch.nan)


def test_an_image_without_an_answer_is_not_fooled(context: Context, tiny_data: Dataset) -> None:
    attack: UniversalAttack = build(choice("attack", "universal_gradient"), "attack")
    white = TransferResult("blinded", 1.0, torch.ones(1, *tiny_data.shape), torch.zeros(1), {})
    found = scored(context, Blinded(), tiny_data, white, attack)
    assert not found["fooling_rate"].any()
    assert torch.equal(found["robust_accuracy"], found["clean_accuracy"])
    assert found["clean_accuracy"].any()


@pytest.mark.data
def test_one_perturbation_fools_many_cifar_images(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["dataset.limit=1000", "trainer.epochs=4", "task.models=null", "attack.training_images=300"]
    answer = trustml("experiment=universal_cifar", f"data_dir={data_dir}", *short)
    assert answer.returncode == 0, answer.stderr
    row = metrics(newest(tmp_path)).iloc[0]
    assert row.fooling_rate > row.noise_fooling_rate + 0.15
