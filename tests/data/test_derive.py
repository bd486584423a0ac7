"""One way to make a data set of another: each is told apart from what it was made of."""

import ast
from pathlib import Path

import pytest
import torch

import trustml_cli
from tests.helpers import NO_CACHE
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.data.relabelled import only_classes
from trustml_cli.data.unseen import split_validation, without_class
from trustml_cli.system.errors import InputError

PACKAGE = Path(trustml_cli.__file__).parent


def test_every_data_set_that_is_made_of_another_has_a_fingerprint_of_its_own(tiny_data: Dataset) -> None:
    made = [
        tiny_data,
        tiny_data.limited(8),
        tiny_data.limited(9),
        only_classes(tiny_data, [0, 1]),
        only_classes(tiny_data, [1, 0]),
        without_class(tiny_data, 0)[0],
        without_class(tiny_data, 1)[0],
        *(split_validation(tiny_data, share, seed)[0] for share in (0.2, 0.5) for seed in (0, 1)),
        tiny_data.limited(8).limited(4),
    ]
    assert len({data.fingerprint for data in made}) == len(made)
    again = tiny_data.derive("turned", train=tiny_data.test)
    assert (again.train, again.test, again.classes) == (tiny_data.test, tiny_data.test, tiny_data.classes)
    assert tiny_data.derive("turned").fingerprint == again.fingerprint != tiny_data.fingerprint


def test_what_is_held_out_is_not_trained_on(tiny_data: Dataset) -> None:
    rest, aside = tiny_data.hold_out(10, seed=3)
    assert (len(rest.train), len(aside.train)) == (54, 10)
    pictures = [{tuple(image.flatten().tolist()) for image in part.train.inputs} for part in (rest, aside)]  # type: ignore[attr-defined]
    assert len(pictures[0] | pictures[1]) == 64
    assert len({each.fingerprint for each in (tiny_data, rest, aside)}) == 3
    assert len(tiny_data.hold_out(1000, seed=3)[1].train) == 12, "a fifth at most"
    assert not torch.equal(tiny_data.hold_out(10, seed=4)[1].train.labels, aside.train.labels)
    with pytest.raises(InputError, match="5 training images or more"):
        tiny_data.limited(4).hold_out(1, seed=3)


def test_nobody_puts_a_fingerprint_together_by_hand() -> None:
    found = []
    for file in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        replaced = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "replace"]
        found += [file.name for call in replaced if any(word.arg == "fingerprint" for word in call.keywords)]
    assert found == ["dataset.py"]


class Own(DatasetSource):
    """A reader that somebody brought along."""

    def read(self, cache_dir: Path) -> Dataset:
        return DATA[0]


DATA: list[Dataset] = []


def test_a_reader_of_the_user_s_counts_with_its_code(tiny_data: Dataset) -> None:
    DATA[:] = [tiny_data]
    assert Own(limit=None).load(NO_CACHE).fingerprint.startswith("tiny, read by ")
