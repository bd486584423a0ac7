"""Convolutions of few input channels with a faster gradient by the image, the most expensive step of an attack on CPU.

A CPU computes 16 channels at once, so that 3 channels cost as much as 16. Here the pixels of a block fill the unused
channels: one strided convolution with a larger kernel computes the gradient of a whole block, and its channels are
rearranged as pixels (the sub-pixel convolution of Shi et al. 2016, arXiv 1609.05158).
"""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

AT_ONCE = 16  # channels: the number of float32 values in a 512-bit register


class ThinConv2d(nn.Module):
    """The frozen convolution `layer` with a faster computation of the same gradient by its input; weights get none.

    Raises ValueError for a layer that is not thin.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        if not is_thin(layer):
            raise ValueError(f"layer: must be a frozen convolution of up to 4 channels with stride 1, got {layer}")
        self.layer = layer
        self.block = isqrt(AT_ONCE // layer.in_channels)
        kernel = block_kernel(layer.weight, self.block).contiguous(memory_format=torch.channels_last)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % self.block or x.shape[-1] % self.block:
            return self.layer(x)  # type: ignore[no-any-return]
        layer = self.layer
        return BlockGradient.apply(x, layer.weight, layer.bias, layer.padding, self.kernel, self.block)  # type: ignore[no-any-return]


class BlockGradient(torch.autograd.Function):
    """A convolution of x [N, C, H, W] whose gradient by x is computed block by block."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], kernel: Tensor, block: int
    ) -> Tensor:
        ctx.save_for_backward(kernel)
        # padding of the backward convolution: how far the outermost pixel's gradient reaches beyond the output
        ctx.reach = [size - 1 - beyond for size, beyond in zip(weight.shape[2:], padding, strict=True)]
        ctx.block = block
        return conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (kernel,) = ctx.saved_tensors
        blocks = conv2d(gradient, kernel.to(gradient.dtype), stride=ctx.block, padding=ctx.reach)
        return pixel_shuffle(blocks, ctx.block), None, None, None, None, None


def is_thin(layer: nn.Module) -> bool:
    """Whether it is a frozen stride-1 convolution on a CPU with at most 4 input channels, so that 2×2 blocks fit."""
    return (
        type(layer) is nn.Conv2d
        and 4 * layer.in_channels <= AT_ONCE
        and (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and all(beyond < size for beyond, size in zip(layer.padding, layer.kernel_size, strict=True))
        and layer.weight.device.type == "cpu"
        and not any(values.requires_grad for values in layer.parameters())
    )


def block_kernel(weight: Tensor, block: int) -> Tensor:
    """The kernel [C·block², O, h+block−1, w+block−1] that computes the gradient of all pixels of a block.

    `weight` [O, C, h, w] is the forward kernel. The gradient of a pixel is a convolution with that kernel rotated by
    180 degrees, and that of its neighbours the same with the kernel shifted.
    """
    turned = weight.detach().flip(2, 3).transpose(0, 1)
    room = block - 1
    moved = [pad(turned, (right, room - right, down, room - down)) for down in range(block) for right in range(block)]
    return torch.stack(moved, dim=1).flatten(0, 1)
