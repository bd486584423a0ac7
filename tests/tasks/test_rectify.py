"""The rectifier through the command line: by its own task, and as a defence that every other task asks."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.configs import choice
from tests.helpers import Cli, facts, metrics, newest
from tests.tasks.parts import MODEL, TRAINER
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.noise import Noise
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.rectify import Rectifier
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.rectify import Rectify

NETWORK = ["model=mlp", "trainer=smoke", "trainer.epochs=4"]
SMALL = ["defence.perturbations=6", "defence.epochs=6", "defence.blocks=2"]
RECTIFIER: Rectifier = build(
    choice("defence", "rectify", perturbations=2, epochs=1, training_images=50, blocks=1, width=4), "defence"
)


@pytest.mark.parametrize(
    ("words", "gain"),
    [
        ([*NETWORK, *SMALL, "attacks.universal.training_images=500", "task.examples=2", "task.images=200"], 0.1),
        pytest.param(["trainer.epochs=6"], 0.25, marks=pytest.mark.faults),
    ],
    ids=["small", "as it comes"],
)
def test_rectified_accuracy_detection_and_what_an_attacker_makes_of_it_who_knows_both(
    words: list[str], gain: float, trustml: Cli, tmp_path: Path
) -> None:
    answer = trustml("task=rectify", *words)
    assert answer.returncode == 0, answer.stderr
    table = metrics(newest(tmp_path), keep_default_na=False)
    rows = table.set_index(["perturbation", "made_on"])
    assert list(rows.index) == [
        ("none", "none"), ("universal", "classifier"), ("universal", "rectified"),
        ("pgd", "classifier"), ("pgd", "rectified"), ("noise", "classifier"),
    ]  # fmt: skip
    clean, unseen = rows.loc["none", "none"], rows.loc["universal", "classifier"]
    assert clean.rectified_accuracy > clean.accuracy - 0.04
    assert clean.combined_accuracy > clean.accuracy - 0.02
    assert clean.fooling_rate == 0
    assert clean.flagged_rate < 0.15
    assert unseen.accuracy < 0.7
    assert unseen.rectified_accuracy > unseen.accuracy + gain
    assert unseen.combined_accuracy > unseen.accuracy + 0.8 * gain
    assert unseen.rectified_fooling_rate < unseen.fooling_rate - gain
    assert float(unseen.auroc) > 0.85
    assert float(unseen.auroc_ci_low) <= float(unseen.auroc) <= float(unseen.auroc_ci_high)
    assert float(unseen.auroc_n) == 2 * unseen.accuracy_n
    assert 0 < float(unseen.nearest_cosine_ci_low) < float(unseen.nearest_cosine) < 1
    known = rows.loc["pgd", "rectified"]
    assert known.rectified_accuracy < 0.2, "gradients pass through the rectifier"
    assert (rows.accuracy_n == (200 if "task.images=200" in words else 450)).all()
    assert (rows.rectified_accuracy_ci_low <= rows.rectified_accuracy).all()
    checks = {check["name"]: check["passed"] for check in facts(newest(tmp_path))["checks"]}
    assert checks["the threshold of the detector holds for test images"] is True
    assert checks["pgd gains nothing from knowing the rectifier"] is False


def test_any_attack_goes_through_the_rectifier_and_the_verdict_is_on_both(trustml: Cli, tmp_path: Path) -> None:
    accuracy = {}
    for defence, keys in (
        ("none", []),
        ("rectify", ["defence.perturbations=2", "defence.epochs=3", "defence.blocks=1"]),
    ):
        words = ["task=attack", f"defence={defence}", *NETWORK, *keys, "task.epsilon=0.2", "task.surfaces=0"]
        answer = trustml(*words, "task.check_images=10", "task.examples=2", "task.images=150")
        assert answer.returncode == 0, answer.stderr
        table = metrics(newest(tmp_path))
        accuracy[defence] = table.clean_accuracy[0], table.robust_accuracy[0]
        checks = {check["name"]: check["passed"] for check in facts(newest(tmp_path))["checks"]}
        assert checks["the model is in eval mode and deterministic"] is True
    assert table.defence[0] == "rectify"
    assert accuracy["rectify"][0] > accuracy["none"][0] - 0.04
    assert accuracy["rectify"][1] < 0.3, "against an attack of each image's own it is no defence"
    assert checks["gradients are not zero"] is True


def test_tasks_that_need_a_linear_network_refuse_one_behind_a_rectifier(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=steal", "task.method=linear_logits", "defence=rectify")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert "model=logistic with defence=rectify is not one" in answer.stderr
    answer = trustml("task=attack", "model=logistic", "attack=linear", "defence=rectify")
    assert answer.returncode == 2
    assert "needs a linear model" in answer.stderr


@pytest.mark.faults
def test_explainers_that_need_a_linear_network_leave_one_behind_a_rectifier_out(trustml: Cli, tmp_path: Path) -> None:
    tiny = [
        "defence.perturbations=1",
        "defence.epochs=1",
        "defence.blocks=1",
        "defence.training_images=50",
        "task.examples=1",
    ]
    answer = trustml(
        "task=explain", "model=logistic", "defence=rectify", "trainer=smoke", *tiny, "task.images=3", "task.steps=4"
    )
    assert answer.returncode == 0, answer.stderr
    assert "linear is left out" in answer.stdout
    assert "linear" not in set(metrics(newest(tmp_path)).explainer)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.float().flatten() for value in network.state_dict().values()])


def test_the_classifier_is_trained_once_and_each_rectifier_has_a_key_of_its_own(
    context: Context, tiny_data: Dataset
) -> None:
    plain = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER))
    first, again, other = (
        context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=each))
        for each in (RECTIFIER, RECTIFIER, replace(RECTIFIER, epsilon=0.1))
    )
    assert len({plain.key, first.key, other.key}) == 3
    assert again.key == first.key
    kept = {folder.name for folder in context.store.root.iterdir() if (folder / "model.json").exists()}
    assert kept == {plain.key, first.key, other.key}
    assert isinstance(first.network, nn.Sequential)
    assert isinstance(again.network, nn.Sequential)
    assert torch.equal(weights(first.network[1]), weights(plain.network))
    assert torch.equal(weights(first.network[0]), weights(again.network[0]))
    assert not torch.equal(weights(first.network[0]), weights(other.network[0]))  # type: ignore[index]
    assert not any(layer.training for layer in first.network.modules())
    assert not any(weight.requires_grad for weight in first.network.parameters())
    stored = load_file(context.store.root / first.key / "model.safetensors")
    assert stored["perturbations"].shape == (2, 1, 8, 8)
    assert not any(name.startswith("classifier") for name in stored)


@dataclass(frozen=True, kw_only=True)
class Learned(Noise):
    """An attack that is fitted to three images, and remembers to which."""

    fitted_to: list[Tensor]

    @property
    def learns_from(self) -> int:
        return 3

    def fit(self, model: nn.Module, x: Tensor, y: Tensor) -> Noise:
        self.fitted_to.append(x)
        return Noise(norm=self.norm, target=None)


def test_an_attack_is_fitted_anew_for_each_part_of_the_images(context: Context, tiny_data: Dataset) -> None:
    guarded = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=RECTIFIER)).network
    assert isinstance(guarded, nn.Sequential)
    task = Rectify(
        epsilon=0.1, images=None, folds=3, C=0.01, detector_images=20, quantile=0.95, validation_fraction=0.1,
        examples=1,
    )  # fmt: skip
    machine = task.detector(context, guarded, RECTIFIER, tiny_data.train)
    attack = Learned(norm=Norm.linf, target=None, fitted_to=[])
    shown = task.show(context, guarded, machine, tiny_data, tiny_data.test, attack, guarded)
    assert len(shown.labels) == len(tiny_data.test)
    assert len(attack.fitted_to) == 3
    assert not torch.equal(attack.fitted_to[0], attack.fitted_to[1])


@pytest.mark.data
def test_a_classifier_of_mnist_is_brought_back_from_universal_perturbations(
    trustml: Cli, tmp_path: Path, data_dir: Path
) -> None:
    few = ["dataset.limit=2000", "trainer.epochs=4", "task.images=200", "task.folds=1"]
    small = [
        "defence.training_images=1200",
        "defence.epochs=3",
        "defence.perturbations=3",
        "defence.blocks=2",
        "defence.width=8",
    ]
    weak = [
        "defence.perturbations=3",
        "task.detector_images=500",
        "attacks.universal.training_images=300",
        "attacks.universal.epochs=6",
        "attacks.pgd.steps=2",
    ]
    answer = trustml("experiment=rectify_mnist", f"data_dir={data_dir}", *few, *small, *weak)
    assert answer.returncode == 0, answer.stderr
    rows = metrics(newest(tmp_path)).set_index(["perturbation", "made_on"])
    unseen = rows.loc["universal", "classifier"]
    assert unseen.rectified_accuracy > unseen.accuracy + 0.25
    assert float(unseen.auroc) > 0.9
