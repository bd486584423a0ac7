"""ReLU and average pooling with a gradient in one pass over memory, which is what such layers cost."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d


class RectifiedPool(nn.Module):
    """ReLU, then the mean of blocks of `size` × `size` values; overwrites its input [N, C, H, W].

    Values and gradient are exactly those of `nn.ReLU` and `nn.AvgPool2d(size)`.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % self.size or x.shape[-1] % self.size:
            return avg_pool2d(x.relu_(), self.size)
        return BlockMeans.apply(x, self.size)  # type: ignore[no-any-return]


class BlockMeans(torch.autograd.Function):
    """The means of the positive parts of blocks; torch's own gradient is three passes over the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        rectified = x.detach().relu_()  # autograd notices if anybody else needs x
        ctx.save_for_backward(rectified)
        ctx.size = size
        return avg_pool2d(rectified, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (rectified,) = ctx.saved_tensors
        blocks = rectified.unflatten(3, (-1, ctx.size)).unflatten(2, (-1, ctx.size))
        share = (gradient / ctx.size**2)[:, :, :, None, :, None].expand_as(blocks)
        return torch.ops.aten.threshold_backward(share, blocks, 0).flatten(4).flatten(2, 3), None


def is_block_mean(pool: nn.Module) -> bool:
    """Whether a layer is an average pooling of square blocks that do not overlap, without padding."""
    if type(pool) is not nn.AvgPool2d or not isinstance(pool.kernel_size, int):
        return False
    plain = (pool.padding, pool.ceil_mode, pool.divisor_override) == (0, False, None)
    return plain and pool.stride == pool.kernel_size
