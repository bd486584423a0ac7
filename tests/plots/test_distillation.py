"""The pictures of distillation."""

import pytest
import torch

from tests.helpers import points, texts
from trustml_cli.plots.distillation import accuracy_over_size, accuracy_over_temperature
from trustml_cli.training.predict import Answers


def test_each_network_stands_at_its_size_and_accuracy() -> None:
    labels = torch.zeros(10, dtype=torch.int64)
    answers = {
        name: Answers(torch.eye(2)[(torch.arange(10) >= right).long()], labels)
        for name, right in (("teacher", 9), ("distilled", 8), ("hard_labels", 6))
    }
    figure = accuracy_over_size(answers, {"teacher": 4000, "distilled": 1000, "hard_labels": 1000}, "cnn")
    shown = [line.get_xydata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [tuple(place) for place in shown] == [(4000, 0.9), (1000, 0.8), (pytest.approx(1080), 0.6)]
    assert "hard labels: 60.0 %, 1,000 weights" in texts(figure)


def test_each_attack_has_a_line_over_the_temperature() -> None:
    def share(count: int) -> torch.Tensor:
        return torch.arange(10) < count

    clean = {1.0: share(10), 100.0: share(9)}
    right = {1.0: {"fgsm": share(2), "carried_over": share(3)}, 100.0: {"fgsm": share(8), "carried_over": share(1)}}
    figure = accuracy_over_temperature(clean, right, "cnn")
    panel = figure.axes[0]
    assert [points(panel, number) for number in range(3)] == [
        [(1.0, 1.0), (100.0, 0.9)], [(1.0, 0.2), (100.0, 0.8)], [(1.0, 0.3), (100.0, 0.1)],
    ]  # fmt: skip
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1", "100"]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["clean", "fgsm", "carried over"]
