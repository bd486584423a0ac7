"""Which images an attacker learns from, and that the victim has not seen those that are set aside."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tasks.parts import MODEL
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.attacker_images import (
    AttackerImages,
    attacker_condition,
    remark_on_checkpoints,
    split_for_attacker,
)
from trustml_cli.tasks.context import Context


def test_images_held_out_are_none_of_the_victim_s(tiny_data: Dataset) -> None:
    victim, attacker = split_for_attacker(tiny_data, 16, AttackerImages.held_out, seed=3)
    assert (len(victim.train), len(attacker.train)) == (48, 16)
    assert isinstance(victim.train, InMemory)
    assert isinstance(attacker.train, InMemory)
    both = torch.cat([victim.train.inputs, attacker.train.inputs]).flatten(1)
    assert len(both.unique(dim=0)) == 64
    assert victim.test is attacker.test is tiny_data.test
    others = [
        split_for_attacker(tiny_data, *how)[0]
        for how in ((16, AttackerImages.held_out, 4), (8, AttackerImages.held_out, 3))
    ]
    assert len({data.fingerprint for data in (tiny_data, victim, *others)}) == 4, "another victim each time"
    assert attacker_condition(16, AttackerImages.held_out) == {"attacker_images": "held_out"}


def test_nothing_is_set_aside_unless_it_is_asked_for_and_needed(tiny_data: Dataset) -> None:
    assert split_for_attacker(tiny_data, 16, AttackerImages.train, seed=3) == (tiny_data, tiny_data)
    assert split_for_attacker(tiny_data, 0, AttackerImages.held_out, seed=3) == (tiny_data, tiny_data)
    assert attacker_condition(0, AttackerImages.held_out) == {}


def test_an_attacker_who_wants_all_is_refused(tiny_data: Dataset) -> None:
    small = replace(tiny_data, train=tiny_data.test)
    with pytest.raises(InputError, match=r"^task\.attacker_images: .*32 of 32 .*lower attack\.training_images"):
        split_for_attacker(small, 32, AttackerImages.held_out, seed=0)


def test_a_network_from_elsewhere_may_have_learned_what_is_held_out(context: Context, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.touch()
    given = replace(MODEL, checkpoint=file)
    remark_on_checkpoints(context, [MODEL], AttackerImages.held_out)
    remark_on_checkpoints(context, [given], AttackerImages.train)
    assert "remarks" not in context.record.facts
    remark_on_checkpoints(context, [MODEL, given], AttackerImages.held_out)
    (remark,) = context.record.facts["remarks"]
    assert "may have learned the attacker's images" in remark
