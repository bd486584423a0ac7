import pytest
import torch
from torch import Tensor, nn

from trustml_cli.models.features import (
    check_features,
    choose_layers,
    is_linear_head,
    joined,
    model_outputs,
    output_layer,
)


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
    assert not any(layer._forward_hooks for layer in network.modules())  # nothing stays behind


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()), nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 3, 2), nn.Flatten())],
    ids=["none", "one that is not the last"],
)
def test_a_network_whose_logits_come_from_no_linear_layer_says_so(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="has no linear layer that makes its logits"):
        output_layer(network, torch.rand(1, 1, 2, 2))


class Auxiliary(HeadFirst):
    """The same, with auxiliary logits that are made after the main ones."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        self.side(x.flatten(1))
        return logits


def test_the_layer_that_makes_the_logits_need_not_be_the_last_one_called() -> None:
    torch.manual_seed(0)
    network, x = Auxiliary(), torch.rand(7, 1, 2, 2)
    assert model_outputs(network, x).head is output_layer(network, x) is network.head
    assert is_linear_head(network, x)


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


class Tokens(nn.Module):
    """Rows of pixels as tokens, whose logits are averaged; `apart` makes each an example of its own on the way."""

    def __init__(self, apart: bool) -> None:
        super().__init__()
        self.apart, self.embed, self.head = apart, nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0].flatten(0, 1) if self.apart else x[:, 0]
        return self.head(input=self.embed(rows).relu()).view(len(x), -1, 3).mean(1)  # type: ignore[no-any-return]


def test_a_head_on_tokens_is_no_linear_head_and_gives_features_if_each_image_has_its_own() -> None:
    x = torch.rand(6, 1, 4, 4)
    check_features(Tokens(apart=False), x)
    assert not is_linear_head(Tokens(apart=False), x)
    assert model_outputs(Tokens(apart=False), x).features.shape == (6, 4 * 5)
    with pytest.raises(ValueError, match=r"gives its last linear layer \[24, 5\] for 6 images"):
        check_features(Tokens(apart=True), x)
    with pytest.raises(ValueError, match=r"^layers: no convolution or linear layer gives \[images, …\]"):
        choose_layers(Tokens(apart=True), x, ["8"])


def test_signals_of_one_dimension_are_averaged_over_places_and_not_over_channels() -> None:
    network = nn.Sequential(nn.Flatten(1, 2), nn.Conv1d(4, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    x = torch.rand(5, 1, 4, 4)
    found = model_outputs(network, x, ["1"]).layers["1"]
    torch.testing.assert_close(found, network[:2](x).view(5, 3, 2, 2).mean(3).flatten(1))
