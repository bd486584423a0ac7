"""Trained models, found again by what made them."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from tests.processes import OneMakes, at_once
from trustml_cli.models.model import Normalization
from trustml_cli.training.store import ModelStore, Stored, load_frozen
from trustml_cli.training.trainer import Epoch, Iteration, Report

RECIPE = {"model": {"is": "Logistic", "normalization": Normalization.dataset}, "seed": 3}
EPOCHS = [Epoch(epoch=n, train_loss=1 / n, train_accuracy=0.5, test_loss=1 / 3, test_accuracy=0.25, lr=0.1,
                seconds=0.125, images=64, step=4 * n,
                iterations=(Iteration(step=n, train_loss=1 / n, train_accuracy=0.5, test_loss=1 / 3,
                                      test_accuracy=0.5, lr=0.1),)) for n in (1, 2)]  # fmt: skip


def trained(report: Report) -> nn.Module:
    """A network after a training of two epochs."""
    for epoch in EPOCHS:
        report(epoch)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)


def never(report: Report) -> nn.Module:
    raise AssertionError("trained again")


def fetch(root: Path, train: Any = trained, recipe: Any = RECIPE) -> Stored:
    return ModelStore(root).get_or_train(recipe, train, lambda epoch: None)


def same(one: Stored, other: Stored) -> bool:
    assert one.weights.keys() == other.weights.keys()
    return all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())


def test_a_model_that_was_trained_is_found_with_its_weights_and_history(tmp_path: Path) -> None:
    networks: list[nn.Module] = []
    reported: list[Epoch] = []

    def train(report: Report) -> nn.Module:
        networks.append(trained(report))
        return networks[0]

    first, second = fetch(tmp_path, train), ModelStore(tmp_path).get_or_train(RECIPE, never, reported.append)
    assert first.key == second.key
    assert same(first, second)
    assert first.weights.keys() == networks[0].state_dict().keys()
    assert torch.equal(first.weights["0.weight"], networks[0][0].weight)
    assert first.history == second.history == reported == EPOCHS


def test_each_epoch_is_reported_while_it_is_trained(tmp_path: Path) -> None:
    reported: list[Epoch] = []

    def train(report: Report) -> nn.Module:
        network = trained(report)
        assert reported == EPOCHS
        return network

    ModelStore(tmp_path).get_or_train(RECIPE, train, reported.append)
    assert reported == EPOCHS


@pytest.mark.parametrize(
    "recipe",
    [
        {**RECIPE, "seed": 4},
        {**RECIPE, "poison": 0.1},
        {**RECIPE, "model": {"is": "Logistic", "normalization": Normalization.none}},
    ],
)
def test_another_recipe_is_another_model(tmp_path: Path, recipe: dict[str, Any]) -> None:
    torch.manual_seed(0)
    first, other = fetch(tmp_path), fetch(tmp_path, recipe=recipe)
    assert first.key != other.key
    assert not same(first, other)
    assert same(first, fetch(tmp_path, never))


def test_the_order_in_which_a_recipe_is_written_does_not_matter(tmp_path: Path) -> None:
    assert fetch(tmp_path).key == fetch(tmp_path, never, dict(reversed(RECIPE.items()))).key


def test_people_can_read_what_a_model_is(tmp_path: Path) -> None:
    key = fetch(tmp_path).key
    facts = json.loads((tmp_path / key / "model.json").read_text())
    assert facts["recipe"] == {"model": {"is": "Logistic", "normalization": "Normalization.dataset"}, "seed": 3}
    assert [row["epoch"] for row in facts["history"]] == [1, 2]
    assert {path.name for path in (tmp_path / key).iterdir()} == {"model.safetensors", "model.json", "checksums.json"}


@pytest.mark.parametrize("damage", ["a byte", "cut short", "gone", "history"])
def test_a_damaged_model_is_trained_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    key = fetch(tmp_path).key
    file = tmp_path / key / ("model.json" if damage == "history" else "model.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content[:-2] if damage == "cut short" else content)
    if damage == "gone":
        file.unlink()
    again: list[Epoch] = []
    with caplog.at_level(logging.WARNING):
        repaired = ModelStore(tmp_path).get_or_train(RECIPE, trained, again.append)
    assert again == EPOCHS
    assert "is damaged (" in caplog.text
    assert file.name in caplog.text
    assert same(repaired, fetch(tmp_path, never))


def test_a_training_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(report: Report) -> nn.Module:
        report(EPOCHS[0])
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fetch(tmp_path, fail)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    assert fetch(tmp_path).history == EPOCHS


@pytest.mark.e2e
def test_processes_that_ask_at_once_train_it_once(tmp_path: Path) -> None:
    others = OneMakes(tmp_path / "others", 3)

    def train(report: Report) -> nn.Module:
        others.makes()
        return trained(report)

    def ask() -> None:
        others.asks()
        stored = fetch(tmp_path / "models", train)
        assert stored.history == EPOCHS
        (tmp_path / f"{os.getpid()}.weights").write_bytes(save(stored.weights))

    assert at_once(ask, ask, ask) == [0, 0, 0]
    assert others.made == 1
    assert len({path.read_bytes() for path in tmp_path.glob("*.weights")}) == 1
    assert len(list(tmp_path.glob("*.weights"))) == 3


def test_tied_weights_can_be_kept(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    stored = fetch(tmp_path, lambda report: nn.Sequential(first, second))
    assert torch.equal(stored.weights["1.weight"], first.weight)


def test_a_resumed_network_is_ready_to_be_asked(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    stored = fetch(tmp_path)
    ready = load_frozen(network, stored.weights, torch.device("cpu"))
    assert not ready.training
    assert not any(weight.requires_grad for weight in ready.parameters())
    assert all(torch.equal(weight, stored.weights[name]) for name, weight in ready.state_dict().items())
