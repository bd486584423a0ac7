"""Anti-aliased subsampling: a low-pass filter before pixels are left out (Zhang 2019, arXiv 1904.11486)."""

from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:  # imports half of torchvision
    from torchvision.models import ResNet


class Pooling(Enum):
    """How a network reduces its resolution."""

    plain = "plain"
    """As its architecture says: by stride or pooling."""
    blur = "blur"
    """By `BlurPool`, after operations of stride 1."""


class BlurPool(nn.Module):
    """Filters each channel of x [N, C, H, W] by [1, 2, 1] ⊗ [1, 2, 1] / 16 and keeps every second pixel.

    The result has half the height and width, rounded up. Pixels outside repeat the edge.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (row[:, None] * row).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), "replicate"), self.kernel, stride=2, groups=x.shape[1])


def blur_resnet(network: "ResNet") -> None:
    """Anti-alias a ResNet of basic blocks in place: its max-pool, and the strided convolutions of its blocks."""
    if isinstance(network.maxpool, nn.MaxPool2d):
        network.maxpool = nn.Sequential(nn.MaxPool2d(3, 1, 1), BlurPool(network.conv1.out_channels))
    for stage in (network.layer2, network.layer3, network.layer4):
        block = stage[0]
        first, shortcut = block.conv1, block.downsample[0]
        first.stride = shortcut.stride = (1, 1)
        block.conv2 = nn.Sequential(BlurPool(first.out_channels), block.conv2)
        block.downsample[0] = nn.Sequential(BlurPool(first.in_channels), shortcut)
