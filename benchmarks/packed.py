"""Products of ±1 by XOR and popcount against torch's products of the same values as float32."""

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.interleaved import Ratio, ratios
from trustml_cli.models.packed import in_bits
from trustml_cli.models.popcount import reach, sums

WIDTH, ROWS = 4096, 64
CHANNELS, SIZE, IMAGES = 128, 28, 16


def signs(*shape: int) -> Tensor:
    """Random ±1."""
    return torch.randint(0, 2, shape).float() * 2 - 1


def packed(n: int) -> list[Ratio]:
    """A wide linear layer and a convolution, each given bits, and given floats that are made bits first."""
    torch.manual_seed(0)
    x, weight = signs(ROWS, WIDTH), signs(WIDTH, WIDTH)
    name = f"linear {WIDTH}×{WIDTH}, {ROWS} rows"
    found = layer(name, x[:, :, None, None], weight[:, :, None, None], 0, n)
    image, kernel = signs(IMAGES, CHANNELS, SIZE, SIZE), signs(CHANNELS, CHANNELS, 3, 3)
    name = f"convolution 3×3, {CHANNELS} to {CHANNELS} channels, {IMAGES} images of {SIZE}×{SIZE}"
    return found + layer(name, image, kernel, 1, n)


def layer(name: str, x: Tensor, weight: Tensor, padding: int, n: int) -> list[Ratio]:
    """Sums of all windows of x [N, C, H, W] under weights [outputs, C, h, w]; they are equal to the last bit."""
    x, weight = (both.contiguous(memory_format=torch.channels_last) for both in (x, weight))
    zeros, bits = torch.zeros(x.shape[1]), in_bits(weight)

    def as_bits() -> Tensor:
        return reach(x.permute(0, 2, 3, 1), zeros)

    given = as_bits()

    def from_bits() -> Tensor:
        return sums(given, bits, len(weight), x.shape[1], 1, padding)

    def from_floats() -> Tensor:
        return sums(as_bits(), bits, len(weight), x.shape[1], 1, padding)

    def of_torch() -> Tensor:
        if weight.shape[2:] == (1, 1):
            return functional.linear(x.flatten(1), weight.flatten(1))[:, :, None, None]
        return functional.conv2d(x, weight, padding=padding)

    for own in (from_bits, from_floats):
        assert torch.equal(own().permute(0, 3, 1, 2), of_torch()), name
    peer = {"torch, float32": of_torch}
    return [
        *ratios(f"{name}, in bits", from_bits, peer, n),
        *ratios(f"{name}, made bits first", from_floats, peer, n),
    ]
