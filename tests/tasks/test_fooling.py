"""Noise that is taken for a class of one's choice, through the command line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.tasks.fooling import judged, together


def run(trustml: Cli, folder: Path, *words: str) -> Path:
    answer = trustml("task=fooling", "trainer=smoke", "model=mlp", *words)
    assert answer.returncode == 0, answer.stderr
    return newest(folder)


def test_many_steps_fool_more_than_one_and_one_more_than_noise(trustml: Cli, tmp_path: Path) -> None:
    directory = run(trustml, tmp_path, "task.noise_images=60", "task.epsilon=0.2")
    table = metrics(directory)
    assert list(table.method[:3]) == ["noise", "one_step", "many_steps"]
    assert list(table[table.method == "noise"].target) == ["all", *map(str, range(10))]
    over_all = table[table.target == "all"].set_index("method")
    rate = over_all.fooling_rate
    assert rate["noise"] < 0.2
    assert rate["one_step"] > rate["noise"] + 0.2
    assert rate["many_steps"] > rate["one_step"] + 0.1
    assert (over_all.fooling_rate_n == 600).all()
    assert (table.fooling_rate <= table.target_rate).all()
    assert (table.mean_linf <= 0.2 + 1e-6).all()
    assert (table.mean_linf[table.method == "noise"] == 0).all()
    kept = load_file(directory / "artifacts" / "fooling.safetensors")
    assert kept["noise"].mean().item() == pytest.approx(0.5, abs=0.02)
    assert kept["noise"].std().item() == pytest.approx(0.2, abs=0.02)
    assert (kept["one_step_3"] - kept["noise"]).abs().amax().item() == pytest.approx(0.2, abs=1e-6)
    assert [check["passed"] for check in facts(directory)["checks"]] == [True, True]


def test_targets_may_be_chosen_and_a_high_bar_is_passed_by_fewer(trustml: Cli, tmp_path: Path) -> None:
    table = metrics(run(trustml, tmp_path, "task.target=[3,8,3]", "task.confidence=0.95", "task.noise_images=50"))
    assert list(table.target) == ["all"] * 3 + ["3", "8"] * 3
    assert (table.fooling_rate[table.method == "one_step"] < table.target_rate[table.method == "one_step"]).any()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("methods.one_step.target=4", "methods.one_step.target: must be null; task.target names the classes"),
        ("+attack@methods.deepfool=deepfool", "methods.deepfool: has no target"),
        ("+attack@methods.substitute=substitute", "methods.substitute: learns from training images"),
    ],
)
def test_a_method_that_cannot_drive_noise_to_a_class_is_refused_before_training(
    word: str, message: str, trustml: Cli
) -> None:
    answer = trustml("task=fooling", "trainer=smoke", "model=mlp", word)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert message in answer.stderr
    assert "training model" not in answer.stdout


def test_judged_by_hand() -> None:
    model = nn.Flatten()  # logits are the pixels
    images = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    one, other = judged(model, images, 0), judged(model, images, 1)
    assert one.taken.tolist() == [True, False]
    torch.testing.assert_close(one.confidence, torch.sigmoid(torch.tensor([2.0, -1.0])))
    both = together([one, other])
    assert both.taken.tolist() == [True, False, False, True]
    torch.testing.assert_close(both.confidence[2:], torch.sigmoid(torch.tensor([-2.0, 1.0])))


def test_an_image_without_an_answer_is_not_taken_for_the_first_class() -> None:
    images = torch.tensor([[2.0, torch.nan], [torch.nan, 1.0]]).view(2, 1, 1, 2)
    assert not judged(nn.Flatten(), images, 0).taken.any()
