import torch

from tests.helpers import line, texts
from trustml_cli.plots.bnn import compared_curves, pre_activation_histograms
from trustml_cli.training.trainer import Epoch


def epochs(test_accuracy: float) -> list[Epoch]:
    return [
        Epoch(epoch=i, train_loss=1.0, train_accuracy=0.5, test_loss=2.0, test_accuracy=i * test_accuracy, lr=1,
              seconds=1, images=1)
        for i in (1, 2)
    ]  # fmt: skip


def test_curves_stand_side_by_side() -> None:
    figure = compared_curves({"relu": epochs(0.4), "sign": epochs(0.3)}, "cnn on digits")
    loss, accuracy = figure.axes
    assert [line(accuracy, number) for number in range(4)] == [[0.5, 0.5], [0.4, 0.8], [0.5, 0.5], [0.3, 0.6]]
    assert [line(loss, number) for number in (0, 3)] == [[1.0, 1.0], [2.0, 2.0]]
    for text in ("cnn on digits: relu 80.00%, sign 60.00%", "relu, train", "sign, test"):
        assert text in texts(figure)


def test_pre_activations_have_a_panel_per_layer_and_network_and_say_where_gradients_pass() -> None:
    inside, half = torch.linspace(-1, 1, 100), torch.linspace(-2, 2, 100)
    figure = pre_activation_histograms({"relu": [inside, half], "sign": [half, inside]}, "cnn on digits")
    assert len(figure.axes) == 4
    shares = [axes.texts[0].get_text() for axes in figure.axes]
    assert shares == ["100% within ±1", "50% within ±1", "50% within ±1", "100% within ±1"]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [-1, 1]
    for text in ("relu", "sign", "layer 2", "pre-activation", "cnn on digits"):
        assert text in texts(figure)
