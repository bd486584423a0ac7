import pytest
import torch

from tests.helpers import texts
from trustml_cli.plots.bnn import pre_activation_histograms


def test_pre_activations_have_a_panel_per_layer_and_network_and_say_where_gradients_pass() -> None:
    inside, half = torch.linspace(-1, 1, 100), torch.linspace(-2, 2, 100)
    figure = pre_activation_histograms({"relu": [inside, half], "sign": [half, inside]}, "cnn on digits")
    assert len(figure.axes) == 4
    shares = [axes.texts[0].get_text() for axes in figure.axes]
    assert shares == ["100 % within ±1", "50 % within ±1", "50 % within ±1", "100 % within ±1"]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [-1, 1]
    for axes, within in zip(figure.axes, (1, 0.5, 0.5, 1), strict=True):
        shares, edges, _ = axes.patches[0].get_data()
        middles = (edges[1:] + edges[:-1]) / 2
        assert shares[abs(middles) <= 1].sum() == pytest.approx(within, abs=0.03)
        assert shares.sum() == pytest.approx(1, abs=0.03)  # a half of the last percent lies beyond the edges
    for text in ("relu", "sign", "layer 2", "pre-activation", "cnn on digits"):
        assert text in texts(figure)
