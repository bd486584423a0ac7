"""The pictures of one perturbation for all images."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import drawn, texts
from trustml_cli.attacks.universal_base import TransferResult
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.style import GREEN, ORANGE
from trustml_cli.plots.universal import fooled_images, perturbations, transfer_matrix


def carried(found_on: str, epsilon: float, **rates: tuple[float, float]) -> TransferResult:
    return TransferResult(
        found_on, epsilon, torch.tensor([epsilon, -epsilon]).view(1, 1, 1, 2), torch.tensor([True, False]), rates
    )


def test_every_pair_of_models_has_its_rate_and_the_last_row_is_noise() -> None:
    both = [carried("mlp", 0.1, mlp=(0.8, 0.1), cnn=(0.3, 0.2)), carried("cnn", 0.1, mlp=(0.4, 0.3), cnn=(0.9, 0.4))]
    figure = transfer_matrix(both, "universal on digits", "linf")
    panel = figure.axes[0]
    rows = [[0.8, 0.3], [0.4, 0.9], [0.2, 0.3]]
    assert drawn(panel) == pytest.approx(np.array(rows))
    assert {text.get_position()[::-1]: text.get_text() for text in panel.texts} == {
        (row, column): in_percent(rate) for row, rates in enumerate(rows) for column, rate in enumerate(rates)
    }
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["mlp", "cnn", "noise"]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["mlp", "cnn"]
    for words in ("universal on digits", "L∞ epsilon 0.1", "found on", "shown to"):
        assert words in texts(figure)


def test_perturbations_stand_by_model_and_epsilon_around_grey() -> None:
    each = [carried(name, epsilon) for name in ("mlp", "cnn") for epsilon in (0.1, 0.25)]
    figure = perturbations(each, "universal on digits", "l2")
    captions = ["epsilon 0.1, ×5", "epsilon 0.25, ×2"]
    assert [axes.get_title() for axes in figure.axes] == captions * 2
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["found on\nmlp", "found on\ncnn"]
    for axes in figure.axes:
        assert drawn(axes)[0].tolist() == pytest.approx([1.0, 0.0])


def test_images_before_and_after_have_their_answers() -> None:
    x = torch.tensor([[0.4, 0.6], [0.8, 0.2]]).view(2, 1, 1, 2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(2))
        network[1].bias.zero_()
    figure = fooled_images(x, [carried("mlp", 0.25)], network, ("left", "right"), "universal")
    assert [axes.get_title().split()[0] for axes in figure.axes] == ["right", "left", "left", "left"]
    assert [axes.title.get_color() for axes in figure.axes] == [GREEN, GREEN, ORANGE, GREEN]
    after = [[0.4, 0.6], [0.8, 0.2], [0.65, 0.35], [1.0, 0.0]]
    for axes, pixels in zip(figure.axes, after, strict=True):
        assert drawn(axes)[0].tolist() == pytest.approx(pixels)
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["before", "ε = 0.25"]
    assert "shown to mlp" in texts(figure)
