"""What makes a trained network what it is: the key under which it is kept, with a defence among it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.configs import choice
from tests.tasks.parts import MODEL, TRAINER
from trustml_cli.attacks.attack import Norm
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.defence import Defence
from trustml_cli.defences.ensemble import EnsembleTraining
from trustml_cli.defences.free import FreeTraining
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context, Trained

FREE = FreeTraining(norm=Norm.linf, epsilon=0.1, images=8, replays=2)


def weights(trained: Trained) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in trained.network.parameters()])


def test_no_defence_is_the_same_as_none_and_every_other_has_a_key_of_its_own(
    context: Context, tiny_data: Dataset
) -> None:
    plain = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER))
    none = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=Defence()))
    assert none.key == plain.key
    assert [row.extra for row in none.history] == [{}] * 4
    others = [FREE, replace(FREE, epsilon=0.2), replace(FREE, replays=4)]
    defended = [context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=each)) for each in others]
    assert len({plain.key, *(each.key for each in defended)}) == 4
    assert not any(torch.equal(weights(plain), weights(each)) for each in defended)
    assert [row.extra["train_robust_accuracy"] is None for row in defended[0].history] == [False] * 2
    again = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=FREE))
    assert (again.key, again.history) == (defended[0].key, defended[0].history)


def test_how_many_images_are_looked_at_does_not_change_what_is_trained(context: Context, tiny_data: Dataset) -> None:
    few, all_ = (
        context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=replace(FREE, images=images)))
        for images in (1, 32)
    )
    assert torch.equal(weights(few), weights(all_))


def test_static_networks_are_trained_from_other_seeds_and_found_again(context: Context, tiny_data: Dataset) -> None:
    ensemble = EnsembleTraining(norm=Norm.linf, epsilon=0.1, images=8, static=2, clean_share=0.5)
    defended = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=ensemble))
    stages = [row["stage"] for row in context.record.epochs]
    assert stages == ["static 1"] * 4 + ["static 2"] * 4 + ["defended"] * 4
    assert context.record.facts["model_key"] == defended.key
    static = context.train_or_load(replace(context, seed=1).spec(tiny_data, MODEL, TRAINER))
    assert len(list(context.store.root.glob("*/model.json"))) == 3, "the first of them was there already"
    assert not torch.equal(weights(static), weights(defended))


def test_a_defence_refuses_what_it_cannot_train(context: Context, tiny_data: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "own.pt"
    file.touch()
    with pytest.raises(InputError, match=r"^defence: .*model\.checkpoint"):
        context.train_or_load(context.spec(tiny_data, replace(MODEL, checkpoint=file), TRAINER, defence=FREE))
    with pytest.raises(InputError, match=r"^defence: .*trainer=default"):
        context.spec(tiny_data, MODEL, build(choice("trainer", "numpy"), "trainer"), defence=FREE)
    table = build(choice("dataset", "census"), "dataset").load()
    with pytest.raises(InputError, match=r"^defence: needs images"):
        context.train_or_load(context.spec(table, MODEL, TRAINER, defence=FREE))
