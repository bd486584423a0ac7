"""task=shift: its figures by hand, and on digits."""

from pathlib import Path

import pytest
import torch

from tests.helpers import Cli, metrics, newest
from trustml_cli.corruptions.shift import offsets
from trustml_cli.tasks.shift import row

SMALL = ("model=mlp", "trainer=smoke", "task.images=100")


def test_figures_at_a_distance_are_those_by_hand() -> None:
    # two images of class 1: the first is right everywhere, the second under its own place and one of the eight shifts
    predicted = torch.zeros(9, 2, dtype=torch.long)
    predicted[:, 0] = 1
    predicted[[4, 0], 1] = 1
    found = row(predicted, torch.tensor([1, 1]), offsets(1), 1)
    assert found["accuracy"] == found["agreement"] == pytest.approx((1 + 1 / 8) / 2)
    assert found["share_invariant"] == 0.5
    assert found["consistency"] == pytest.approx((1 + (4 + 49) / 81) / 2)
    at_zero = row(predicted, torch.tensor([1, 0]), offsets(1), 0)
    assert (at_zero["accuracy"], at_zero["accuracy_n"]) == (0.5, 2)
    assert at_zero["agreement"] == at_zero["consistency"] == at_zero["share_invariant"] == 1


def test_an_image_without_an_answer_agrees_with_none() -> None:
    predicted = torch.zeros(9, 2, dtype=torch.long)
    predicted[:, 1] = -1
    found = row(predicted, torch.tensor([0, 0]), offsets(1), 1)
    assert found["accuracy"] == found["agreement"] == found["share_invariant"] == found["consistency"] == 0.5


def test_digits_are_misread_when_they_move(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=shift", *SMALL, "task.distance=2", "task.fill=circular")
    assert answer.returncode == 0, answer.stderr
    rows = metrics(newest(tmp_path)).set_index("distance")
    assert list(rows.index) == [0, 1, 2]
    assert (rows.accuracy.diff()[1:] < -0.1).all()
    assert (rows.agreement[0], rows.consistency[0]) == (1, 1)
    assert (rows.share_invariant < rows.agreement)[1:].all()
    assert (rows.accuracy_n == 100).all()
    assert {path.stem for path in (newest(tmp_path) / "plots").iterdir()} == {"map", "curves", "changed"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.distance=8",), ("task.distance", "below the 8 pixels")),
        (("model=mnist_bnn", "model.pooling=blur"), ("model.pooling", "use plain")),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml("task=shift", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout
