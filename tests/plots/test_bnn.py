import pytest
import torch

from tests.helpers import points, texts
from trustml_cli.plots.bnn import compared_curves, pre_activation_histograms
from trustml_cli.training.trainer import Epoch


def epochs(test_accuracy: float) -> list[Epoch]:
    return [
        Epoch(epoch=i, train_loss=3.0 - i, train_accuracy=0.5, test_loss=test_accuracy,
              test_accuracy=i * test_accuracy, lr=1, seconds=1, images=1)
        for i in (1, 2)
    ]  # fmt: skip


def test_curves_stand_side_by_side() -> None:
    figure = compared_curves({"relu": epochs(0.4), "sign": epochs(0.3)}, "cnn on digits")
    loss, accuracy = figure.axes
    heights = [[0.5, 0.5], [0.4, 0.8], [0.5, 0.5], [0.3, 0.6]]
    assert [points(accuracy, number) for number in range(4)] == [[(1, first), (2, last)] for first, last in heights]
    heights = [[2.0, 1.0], [0.4, 0.4], [2.0, 1.0], [0.3, 0.3]]
    assert [points(loss, number) for number in range(4)] == [[(1, first), (2, last)] for first, last in heights]
    legend = accuracy.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["relu, train", "relu, test", "sign, train", "sign, test"]
    for text in ("cnn on digits: relu 80.00%, sign 60.00%", "epoch", "cross-entropy (nats)"):
        assert text in texts(figure)


def test_pre_activations_have_a_panel_per_layer_and_network_and_say_where_gradients_pass() -> None:
    inside, half = torch.linspace(-1, 1, 100), torch.linspace(-2, 2, 100)
    figure = pre_activation_histograms({"relu": [inside, half], "sign": [half, inside]}, "cnn on digits")
    assert len(figure.axes) == 4
    shares = [axes.texts[0].get_text() for axes in figure.axes]
    assert shares == ["100% within ±1", "50% within ±1", "50% within ±1", "100% within ±1"]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [-1, 1]
    for axes, within in zip(figure.axes, (1, 0.5, 0.5, 1), strict=True):
        shares, edges, _ = axes.patches[0].get_data()
        middles = (edges[1:] + edges[:-1]) / 2
        assert shares[abs(middles) <= 1].sum() == pytest.approx(within, abs=0.03)
        assert shares.sum() == pytest.approx(1, abs=0.03)  # a half of the last percent lies beyond the edges
    for text in ("relu", "sign", "layer 2", "pre-activation", "cnn on digits"):
        assert text in texts(figure)
