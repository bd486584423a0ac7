"""The sign, its straight-through gradient, and layers of binary weights, against their definitions."""

import pytest
import torch
from torch import nn

from tests.helpers import FRESH
from trustml_cli.models.binary import Activation, BinaryConv2d, BinaryLinear, Sign, sign
from trustml_cli.models.blur import Pooling
from trustml_cli.models.mnist_cnn import MnistCnn
from trustml_cli.models.model import InputSpec, Normalization

DEFINITION = [  # x, its sign, and whether the gradient passes
    (-7.0, -1, 0), (-1.0001, -1, 0), (-1.0, -1, 1), (-0.5, -1, 1), (-1e-30, -1, 1), (-0.0, 1, 1), (0.0, 1, 1),
    (1e-30, 1, 1), (0.5, 1, 1), (1.0, 1, 1), (1.0001, 1, 0), (7.0, 1, 0),
]  # fmt: skip


@pytest.mark.parametrize(("x", "value", "passes"), DEFINITION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_sign_and_its_gradient_are_as_defined(x: float, value: int, passes: int, dtype: torch.dtype) -> None:
    given = torch.tensor([x], dtype=dtype, requires_grad=True)
    made = sign(given)
    assert (made.item(), made.dtype) == (value, dtype)
    (gradient,) = torch.autograd.grad(made, given, torch.tensor([2.5], dtype=dtype))
    # bfloat16 knows no 1.0001: it is 1 there
    assert gradient.item() == 2.5 * (passes if dtype is not torch.bfloat16 else abs(given.item()) <= 1)


def test_a_binary_layer_computes_with_the_signs_of_its_weights_and_trains_the_weights_behind_them() -> None:
    layer = BinaryLinear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[0.2, -3.0, 0.0]])
    x = torch.tensor([[5.0, 7.0, 11.0]])
    assert layer.eval()(x).item() == 5 - 7 + 11
    assert layer.weight.tolist() == [[pytest.approx(0.2), -3.0, 0.0]]  # asking changes nothing
    layer.train()(x).sum().backward()
    assert layer.weight.tolist() == [[pytest.approx(0.2), -1.0, 0.0]]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == x.tolist()


def test_a_binary_convolution_is_the_convolution_with_the_signs() -> None:
    torch.manual_seed(0)
    binary, plain = BinaryConv2d(2, 3, 3, padding=1, stride=2), nn.Conv2d(2, 3, 3, padding=1, stride=2)
    plain.weight.data, plain.bias = torch.where(binary.weight >= 0, 1.0, -1.0), binary.bias
    x = torch.rand(4, 2, 6, 6)
    torch.testing.assert_close(binary(x), plain(x))


def network(activation: Activation, binary_weights: bool) -> nn.Sequential:
    torch.manual_seed(0)
    model = MnistCnn(
        pooling=Pooling.plain,
        activation=activation,
        binary_weights=binary_weights,
        normalization=Normalization.symmetric,
        **FRESH,
    )
    return model.build(InputSpec((1, 28, 28), 10, (0.5,), (0.5,)))


@pytest.mark.parametrize("binary_weights", [False, True])
@pytest.mark.parametrize("activation", list(Activation))
def test_every_hidden_layer_and_no_other_has_the_activation(activation: Activation, binary_weights: bool) -> None:
    layers = list(network(activation, binary_weights).get_submodule("network").children())
    kind = {Activation.relu: nn.ReLU, Activation.sign: Sign}[activation]
    assert sum(isinstance(layer, nn.ReLU | Sign) for layer in layers) == sum(
        isinstance(layer, kind) for layer in layers
    )
    assert sum(isinstance(layer, kind) for layer in layers) == 6
    weighted = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert len(weighted) == 7
    assert all(isinstance(layer, BinaryLinear | BinaryConv2d) == binary_weights for layer in weighted)
    assert not isinstance(layers[-1], kind)


def test_with_binary_weights_nothing_but_the_signs_of_the_weights_matters() -> None:
    whole = network(Activation.sign, binary_weights=True)
    x = torch.rand(8, 1, 28, 28)
    before = whole(x)
    for layer in whole.modules():
        if isinstance(layer, BinaryLinear | BinaryConv2d):
            layer.weight.data *= 0.25
    assert torch.equal(whole(x), before)
