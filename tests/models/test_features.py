import pytest
import torch
from torch import Tensor, nn

from trustml_cli.models.features import choose_layers, is_linear_head, joined, model_outputs, output_layer


class HeadFirst(nn.Module):
    """The output layer is defined first, and another linear layer is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.unused = nn.Linear(5, 3), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(1)).relu())  # type: ignore[no-any-return]


def test_features_are_what_the_output_layer_is_given_wherever_it_is_defined() -> None:
    torch.manual_seed(0)
    network, x = HeadFirst(), torch.rand(7, 1, 2, 2)
    found = model_outputs(network, x)
    assert found.head is output_layer(network, x) is network.head
    assert found.features.shape == (7, 5)
    assert torch.equal(network.head(found.features), found.logits)
    assert torch.equal(network(x), found.logits)
    assert not any(layer._forward_pre_hooks for layer in network.modules())  # nothing stays behind


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()), nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 3, 2), nn.Flatten())],
    ids=["none", "one that is not the last"],
)
def test_a_network_whose_logits_come_from_no_linear_layer_says_so(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="has no linear layer that makes its logits"):
        output_layer(network, torch.rand(1, 1, 2, 2))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)).eval()


def test_layers_are_given_by_name_as_they_are_before_what_follows_works_in_place() -> None:
    network, x = convolutional(), torch.rand(5, 1, 8, 8)
    found = model_outputs(network, x, ["5", "2", "3"])
    before = network[:3](x)
    cells = before.view(5, 3, 2, 4, 2, 4).mean((3, 5))  # of 8×8 pixels a grid of 2×2
    torch.testing.assert_close(network[2](network[:2](x)).view(5, 3, 2, 4, 2, 4).mean((3, 5)), cells)
    torch.testing.assert_close(found.layers["2"], cells.flatten(1))
    torch.testing.assert_close(found.layers["3"], network[:4](x).view(5, 3, 2, 4, 2, 4).mean((3, 5)).flatten(1))
    assert (found.layers["5"] < 0).any()
    torch.testing.assert_close(found.layers["5"], network[:6](x))
    both = joined([model_outputs(network, part, ["5"]) for part in x.split(3)])
    torch.testing.assert_close((both.logits, both.features, both.layers["5"]),
                               (found.logits, found.features, found.layers["5"]))  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "names"),
    [(["4"], ["0", "2", "5", "7"]), (["2"], ["2", "7"]), (["1"], ["7"]), (["9"], ["0", "2", "5", "7"])],
)
def test_a_number_of_layers_is_spread_up_to_the_last(wanted: list[str], names: list[str]) -> None:
    assert choose_layers(convolutional(), torch.rand(1, 1, 8, 8), wanted) == names


def test_layers_by_name_must_be_there() -> None:
    network, x = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 6)), nn.Linear(6, 4)), torch.rand(1, 1, 8, 8)
    assert choose_layers(network, x, ["1", "0.1", "1"]) == ["1", "0.1"]
    for wanted, words in ({"0.7": "no layer '0.7'; there are 0.1, 1", "": "no layer ''"}).items():
        with pytest.raises(ValueError, match=f"^layers: {words}"):
            choose_layers(network, x, [wanted, "1"])
    for wanted in (["0"], []):
        with pytest.raises(ValueError, match=r"^layers: (must be at least 1|needs at least one)"):
            choose_layers(network, x, wanted)


def test_logits_that_something_else_follows_are_noticed() -> None:
    network, x = convolutional(), torch.rand(5, 1, 8, 8)
    assert is_linear_head(network, x)
    assert not is_linear_head(nn.Sequential(*network, nn.LogSoftmax(1)), x)
