"""Patches and stickers through the command line: success by transformation, beside noise and nothing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.configs import choice, choices
from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.config.instantiate import build
from trustml_cli.plots.physical import PatchedResult
from trustml_cli.tasks.physical import transformations

ROWS = ["none", "rotation", "scale", "place", "brightness", "all"]


@pytest.mark.parametrize("name", choices("physical"))
def test_success_is_told_for_each_transformation(name: str, trustml: Cli, tmp_path: Path) -> None:
    large = {"patch": ["physical.area=0.4", "physical.place=0.5"], "sticker": ["physical.bar=0.25"]}[name]
    words = ["task=physical", f"physical={name}", "physical.target=2", "trainer=smoke", "model=mlp", *large]
    answer = trustml(*words, "task.images=300", "task.examples=2")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run)
    assert list(table.transformation) == ROWS
    assert (table.target == 2).all()
    assert (table.success_rate_n == 300).all()
    assert (table.success_rate > table.noise_success_rate + 0.15).all()
    assert (table.bare_success_rate < 0.15).all()
    bare = table.set_index("transformation").bare_accuracy
    assert bare["none"] > 0.85
    assert (bare["place"] == bare["none"]) == (name == "patch")  # a patch moves alone, a sticker with its object
    pattern = load_file(run / "artifacts" / "pattern.safetensors")["pattern"]
    assert 0 <= pattern.min() < pattern.max() <= 1
    assert [check["passed"] for check in facts(run)["checks"]] == [True]


def test_without_a_target_the_easiest_class_is_taken(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=physical", "physical.target=null", "physical.area=0.4", "physical.steps=50", "physical.restarts=2"]
    answer = trustml(*words, "trainer=smoke", "model=mlp", "task.images=200", "task.examples=1")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    rates = facts(run)["target_rates"]
    assert list(rates) == [str(digit) for digit in range(10)]
    assert 0 < max(rates.values()) <= 1
    row = metrics(run).iloc[-1]
    assert str(row.target) == max(rates, key=rates.get)
    assert row.success_rate > row.noise_success_rate + 0.15


def test_each_transformation_is_tried_alone() -> None:
    physical = build(choice("physical", "patch"), "physical")
    ranges = transformations(physical)
    assert list(ranges) == ROWS
    assert vars(ranges["none"]) == {"rotation": 0, "scale": 0, "place": 0, "brightness": 0}
    assert vars(ranges["scale"]) == {"rotation": 0, "scale": 0.2, "place": 0, "brightness": 0}
    assert ranges["all"] == physical.ranges


def test_success_worked_out_by_hand() -> None:
    predicted = {"pattern": torch.tensor([8, 1, 8]), "noise": torch.tensor([2, 8, 3])}
    worn = PatchedResult("all", torch.tensor([2, 1, 3]), predicted, torch.zeros(3), *torch.zeros(2, 3, 1, 2, 2))
    assert worn.success("pattern", 8).tolist() == [True, False, True]
    assert worn.success("noise", 8).tolist() == [False, True, False]
