"""A thin convolution says what the layer says, with the same gradient by its input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import grad

from trustml_cli.models.thin_conv import ThinConv2d, block_kernel, is_thin


def frozen(channels: int, out_channels: int = 5, **settings: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, out_channels, **{"kernel_size": 3, **settings}).double().requires_grad_(False)  # type: ignore[arg-type]


def gradient(layer: nn.Module, x: Tensor) -> Tensor:
    """That of a sum of the output in which every value counts differently."""
    x = x.clone().requires_grad_(True)
    out = layer(x)
    return grad((out * torch.arange(out.numel()).view_as(out).sin()).sum(), x)[0]


@given(
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_output_and_gradient_are_those_of_the_layer(
    channels: int, kernel: tuple[int, int], padding: tuple[int, int], size: tuple[int, int], bias: bool
) -> None:
    padding = min(padding[0], kernel[0] - 1), min(padding[1], kernel[1] - 1)
    layer = frozen(channels, kernel_size=kernel, padding=padding, bias=bias)
    x = torch.rand(3, channels, *size, dtype=torch.float64)
    thin = ThinConv2d(layer)
    assert torch.equal(thin(x), layer(x))
    torch.testing.assert_close(gradient(thin, x), gradient(layer, x))


def test_a_block_holds_the_turned_kernel_once_for_each_of_its_pixels() -> None:
    weight = torch.tensor([[[[1.0, 2.0]]]])  # out(x) = 1·in(x) + 2·in(x+1)
    kernel = block_kernel(weight, 2)
    assert kernel.shape == (4, 1, 2, 3)
    assert kernel[:, 0].tolist() == [
        [[2, 1, 0], [0, 0, 0]],
        [[0, 2, 1], [0, 0, 0]],
        [[0, 0, 0], [2, 1, 0]],
        [[0, 0, 0], [0, 2, 1]],
    ]


def test_gradients_of_gradients_pass() -> None:
    layer = frozen(1, padding=1)
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: ThinConv2d(layer)(x).square(), x)


def test_layout_of_the_images_is_kept() -> None:
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    thin = ThinConv2d(frozen(3).float())
    assert gradient(thin, x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "layer",
    [
        frozen(5),
        frozen(1, stride=2),
        frozen(1, dilation=2),
        frozen(2, 4, groups=2),
        frozen(1, padding=1, padding_mode="reflect"),
        frozen(1, padding="same"),
        frozen(1, padding=3),
        frozen(1).requires_grad_(True),
        nn.Linear(3, 3).requires_grad_(False),
        nn.ConvTranspose2d(1, 1, 3).requires_grad_(False),
    ],
    ids=str,
)
def test_others_stay_as_they_are(layer: nn.Module) -> None:
    assert not is_thin(layer)
    with pytest.raises(ValueError, match="layer: must be a frozen convolution"):
        ThinConv2d(layer)  # type: ignore[arg-type]
