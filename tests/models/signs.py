"""Networks of signs as if they had been trained, and images for them."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from tests.helpers import FRESH
from trustml_cli.models.binary import Activation, BinaryLinear, Sign
from trustml_cli.models.blur import Pooling
from trustml_cli.models.mnist_cnn import MnistCnn
from trustml_cli.models.model import InputSpec, Normalization


def lived_in(network: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """`network` as if it had been trained: BatchNorm that rises, falls, and in one channel never changes."""
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.weight.data.normal_()
            layer.weight.data[0] = 0
            layer.bias.data.normal_()
            layer.running_mean.normal_(0, 3)
            layer.running_var.uniform_(1, 200)
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def cnn(size: int, normalization: Normalization) -> nn.Sequential:
    torch.manual_seed(0)
    model = MnistCnn(
        pooling=Pooling.plain, activation=Activation.sign, binary_weights=True, normalization=normalization, **FRESH
    )
    return lived_in(model.build(InputSpec((1, size, size), 10, (0.3,), (0.2,))))


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    widths = (12, 70, 65)
    hidden = [
        layer
        for before, after in pairwise(widths)
        for layer in (BinaryLinear(before, after, bias=False), nn.BatchNorm1d(after), Sign())
    ]
    return lived_in(nn.Sequential(nn.Flatten(), *hidden, BinaryLinear(65, 3), nn.BatchNorm1d(3)))


NETWORKS = {
    "28 px": (partial(cnn, 28, Normalization.symmetric), (1, 28, 28)),
    "9 px": (partial(cnn, 9, Normalization.dataset), (1, 9, 9)),
    "not normalised": (partial(cnn, 8, Normalization.none), (1, 8, 8)),
    "dense": (dense, (3, 2, 2)),
}


def named(name: str) -> tuple[nn.Sequential, tuple[int, ...]]:
    """One of NETWORKS, built anew, and the shape of its images."""
    build, shape = NETWORKS[name]
    return build(), shape


def images(shape: tuple[int, ...], count: int = 20) -> Tensor:
    pixels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(1))
    return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
