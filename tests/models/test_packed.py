"""Networks of signs in bits: the same hidden values and logits, to the last bit, and the same again from a file."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.models.signs import NETWORKS, images, lived_in, named
from trustml_cli.models.binary import BinaryConv2d, BinaryLinear, Sign
from trustml_cli.models.packed import (
    GREATEST,
    as_float,
    from_bits,
    in_layers,
    load_packed,
    pack,
    rises,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_values_and_logits_are_those_of_the_network_of_floats(name: str) -> None:
    network, shape = named(name)
    x, hidden = images(shape), []
    signs = [layer for layer in network.modules() if isinstance(layer, Sign)]
    hooks = [layer.register_forward_hook(lambda _, given, made: hidden.append(made)) for layer in signs]
    logits = network(x)
    for hook in hooks:
        hook.remove()
    packed, made = pack(network, shape), x
    for layer, expected in zip(packed[:-1], hidden, strict=True):
        made = layer(made)
        assert made.dtype == torch.int64
        assert torch.equal(from_bits(made, expected.shape[1]).view_as(expected), expected)
        assert 0.05 < (expected > 0).double().mean() < 0.95
    assert torch.equal(packed[-1](made), logits)
    assert torch.equal(packed(x), logits)
    assert len(logits.unique()) > 10


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_gives_the_same_network_again(name: str, tmp_path: Path) -> None:
    network, shape = named(name)
    packed = pack(network, shape)
    save_file({key: value.contiguous() for key, value in packed.state_dict().items()}, tmp_path / "packed.safetensors")
    loaded, x = load_packed(tmp_path / "packed.safetensors"), images(shape)
    assert torch.equal(loaded(x), packed(x))
    assert loaded.state_dict().keys() == packed.state_dict().keys()
    assert not list(loaded.parameters())


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"network.0.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors holds no packed network; task=bnn"):
        load_packed(tmp_path / "model.safetensors")


def test_layers_of_floats_do_what_the_network_does_with_weights_that_are_signs_already() -> None:
    network, shape = named("28 px")
    layers = in_layers(network)
    assert torch.equal(nn.Sequential(*layers)(images(shape)), network(images(shape)))
    weighted = [part for layer in layers for part in layer if isinstance(part, nn.Conv2d | nn.Linear)]
    assert {type(part) for part in weighted} == {nn.Conv2d, nn.Linear}
    assert all(part.weight.abs().eq(1).all() for part in weighted)
    assert len(layers) == 7


def norm(mean: list[float], gamma: list[float], beta: list[float]) -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(len(mean), eps=0).eval().requires_grad_(False)
    layer.running_mean, layer.weight.data, layer.bias.data = (torch.tensor(part) for part in (mean, gamma, beta))
    return layer


def test_a_channel_fires_where_batchnorm_gives_exactly_0_whichever_way_it_goes() -> None:
    layer = norm(mean=[3.0, 3.0, 3.0, 0.0, 0.0, 0.0], gamma=[2.0, -2.0, 1.0, 0.0, 0.0, 0.0],
                 beta=[0.0, 0.0, 1e-3, 0.0, 1.0, -1.0])  # fmt: skip
    direction, threshold = rises(layer, torch.zeros(6), Tensor.float, 9)
    assert direction.tolist() == [1, -1, 1, 1, 1, 1]
    assert threshold.tolist() == [3, -3, 3, -9, -9, 10]  # −sum ≥ −3; always, always, never


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), most=st.integers(1, 300))
def test_thresholds_hold_for_every_sum_that_there_can_be(seed: int, most: int) -> None:
    layer = lived_in(nn.Sequential(nn.BatchNorm2d(40)), seed)[0]
    assert isinstance(layer, nn.BatchNorm2d)
    bias = torch.randn(40)
    direction, threshold = rises(layer, bias, Tensor.float, most)
    sums = torch.arange(-most, most + 1).float().view(-1, 1)
    fires = layer((sums + bias)[:, :, None, None]).flatten(1) >= 0
    assert torch.equal(direction * sums >= threshold, fires)


def test_a_threshold_between_floats_is_the_least_float_that_fires() -> None:
    layer = lived_in(nn.Sequential(nn.BatchNorm1d(200)))[0]
    assert isinstance(layer, nn.BatchNorm1d)
    direction, key = rises(layer, torch.zeros(200), as_float, GREATEST)
    at, below = as_float(key)[1:], as_float(key - 1)[1:]  # channel 0 never changes
    assert torch.equal(torch.nextafter(below, torch.tensor(torch.inf)), at)
    for value, expected in ((at, True), (below, False)):
        given = torch.cat([torch.zeros(1), value])
        assert bool(((layer((direction * given)[None])[0] >= 0)[1:] == expected).all())


def test_floats_are_numbered_in_order() -> None:
    places = torch.tensor([-GREATEST, -1, 0, 1, 0x3F800000, GREATEST])
    limits = torch.finfo(torch.float32)
    assert as_float(places).tolist() == [limits.min, -(2.0**-149), 0, 2.0**-149, 1, limits.max]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([BinaryLinear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), BinaryLinear(4, 2), nn.BatchNorm1d(2)], "ReLU"),
        ([BinaryLinear(4, 4), Sign(), BinaryLinear(4, 2), nn.BatchNorm1d(2)], "BinaryLinear, Sign|Linear, Sign"),
        ([nn.Linear(4, 4), nn.BatchNorm1d(4), Sign(), BinaryLinear(4, 2), nn.BatchNorm1d(2)], "need to be binary"),
        ([BinaryConv2d(4, 4, 1, groups=2), nn.BatchNorm2d(4), Sign(), BinaryLinear(4, 2)], "groups=2"),
        ([BinaryConv2d(4, 4, 3, stride=(1, 2)), nn.BatchNorm2d(4), Sign(), BinaryLinear(4, 2)], "same both ways"),
        ([BinaryConv2d(4, 4, 3), nn.BatchNorm2d(4), Sign(), nn.MaxPool2d(2), BinaryLinear(4, 2)], "MaxPool2d"),
        ([BinaryLinear(4, 2), nn.BatchNorm1d(2)], "cannot be put in bits"),
        ([BinaryLinear(4, 2), nn.BatchNorm1d(2), Sign()], "cannot be put in bits"),
    ],
)  # fmt: skip
def test_what_has_no_form_in_bits_is_named(layers: list[nn.Module], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pack(nn.Sequential(*layers), (4,))
