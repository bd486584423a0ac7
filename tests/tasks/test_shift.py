"""task=shift: its figures by hand, and on digits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.configs import composed
from tests.helpers import CPU, Cli, metrics, newest
from trustml_cli.config.instantiate import build
from trustml_cli.corruptions.shift import offsets
from trustml_cli.data.dataset import InMemory
from trustml_cli.system.errors import RunFailed
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


class Lost(nn.Module):
    """Logits that are no numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 2), torch.nan)


def test_a_network_that_says_nothing_is_not_invariant() -> None:
    task: Any = build(composed("task=shift").task, "task")
    split = InMemory(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3).long())
    with pytest.raises(RunFailed, match="gives no finite logits for 3 of 3 examples"):
        task.predicted(Lost(), split, offsets(1), CPU)


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
