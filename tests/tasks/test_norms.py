"""task=norms: its figures by hand, on digits, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import Cli, metrics, newest
from trustml_cli.attacks.attack import Norm
from trustml_cli.tasks.norms import CompareNorms, judged


def test_figures_by_hand() -> None:
    classes = torch.tensor([0, 1, 1, 0])
    found = judged(
        torch.tensor([1.0, 2, 3, 4]), torch.full((4,), 3.0), classes, torch.tensor([0, 1, 0, 0]), 1 - classes
    )
    assert (found["distance"], found["nearest_other_class"]) == (2.5, 3)
    assert (found["share_beyond_another_class"], found["share_beyond_another_class_n"]) == (0.5, 4)
    assert found["agreement"] == 0.75
    assert (found["clean_accuracy"], found["accuracy"]) == (0, 0.25)
    no_answer = torch.full((4,), -1)
    assert judged(torch.ones(4), torch.ones(4), no_answer, no_answer, classes)["agreement"] == 0


def test_look_alikes_are_farther_than_other_digits(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=norms", "model=logistic", "trainer=smoke", "task.images=100", "task.pool=300")
    assert answer.returncode == 0, answer.stderr
    rows = metrics(newest(tmp_path)).set_index("norm")
    assert list(rows.index) == ["l0", "l1", "l2", "linf"]
    assert (rows.share_beyond_another_class > 0.9).all()
    assert rows.distance["l0"] == 64
    assert rows.agreement["l0"] > 0.98 > rows.agreement["l2"]  # no network minds one grey level
    assert [path.stem for path in (newest(tmp_path) / "plots").iterdir()] == ["pairs"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm": []}, "norm: needs at least one"),
        ({"brightness": 0.0}, "brightness: must be"),
        ({"shift": 0}, "shift: "),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], words: str) -> None:
    values = {"norm": [Norm.l2], "brightness": 0.2, "shift": 1, "images": 9, "pool": 9, "examples": 1}
    with pytest.raises(ValueError, match=words):
        CompareNorms(**(values | changes))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("task.shift=8",), "task.shift: must be below the 8 pixels"),
        (("dataset=census", "model=table_mlp"), "dataset: needs images"),
        (("task.pool=1",), "task.pool: holds images of one class alone"),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], line: str, trustml: Cli) -> None:
    answer = trustml("task=norms", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert line in answer.stderr
    assert "training model" not in answer.stdout
