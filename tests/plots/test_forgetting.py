"""The plot of cleaned networks."""

import torch

from tests.helpers import points
from trustml_cli.plots.forgetting import success_over_accuracy


def test_each_cleaner_stands_where_its_accuracy_and_success_are() -> None:
    def share(count: int) -> torch.Tensor:
        return torch.arange(10) < count

    clean = {("none", 0.0): share(9), ("fine_tune", 0.0): share(8), ("fine_tune", 0.1): share(7)}
    success = {("none", 0.0): share(10), ("fine_tune", 0.0): share(1), ("fine_tune", 0.1): share(6)}
    figure = success_over_accuracy(clean, success, "cnn")
    shown = [points(figure.axes[0], number) for number in range(len(figure.axes[0].lines))]
    assert [place for place in ([(0.9, 1.0)], [(0.8, 0.1)], [(0.7, 0.6)]) if place not in shown] == []
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["backdoored", "fine tune", "0 % of the clean set tainted", "10 % of the clean set tainted"]
