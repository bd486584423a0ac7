"""Sums of products of ±1 by XOR and popcount: a sum of n products is n − 2 · (number of differing signs).

A sign is a bit, 1 for +1. Activations are channels last, [N, H, W, words] of int64: channel c is bit c % 64 of word
c // 64, and bits beyond the channels are 0. Weights are [blocks, kernel H, kernel W, words, 64] of int64: output o is
lane o % 64 of block o // 64, so that one block of sums becomes one word of the next layer's input. Kernel positions in
the padding are left out of both counts, like zeros in a float sum, so that all sums equal the convolution's exactly.

numba compiles the kernels at the first call, for the processor in use, with its vector popcount if it has one.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

WORD = 64
ENOUGH = 2**21  # words to compare, 0.1 to 0.2 ms: with fewer, a further thread does not pay
Array = NDArray[Any]


@intrinsic
def ones(_: Any, word: Any) -> Any:
    """The number of bits of a word that are 1 (popcount)."""
    return word(word), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


@njit(nogil=True)
def differ(image: Array, weights: Array, top: int, left: int, channels: int, differing: Array) -> int:
    """Count differing signs in the window at (top, left) into `differing` [64]; returns the number compared.

    `image` is [H, W · words] and `weights` [kernel H, kernel W · words, 64]: a kernel row is contiguous in both.
    """
    words = (channels + WORD - 1) // WORD
    first_row, last_row = max(0, -top), min(weights.shape[0], image.shape[0] - top)
    first, last = max(0, -left), min(weights.shape[1] // words, image.shape[1] // words - left)
    for lane in range(WORD):
        differing[lane] = 0
    for row in range(first_row, last_row):
        for place in range(first * words, last * words):
            word = image[top + row, left * words + place]
            for lane in range(WORD):
                differing[lane] += ones(word ^ weights[row, place, lane])  # type: ignore[call-arg]
    compared: int = (last_row - first_row) * (last - first) * channels
    return compared


@njit(nogil=True)
def fire_kernel(
    x: Array, made: Array, weights: Array, thresholds: Array, channels: int, stride: int, padding: int
) -> None:
    """Write into `made` [N, H, W, blocks] whether each sum is at least its threshold [blocks, 64]."""
    differing = np.empty(WORD, np.int64)
    for block in range(len(weights)):
        for number in range(len(x)):
            for row in range(made.shape[1]):
                for column in range(made.shape[2]):
                    top, left = row * stride - padding, column * stride - padding
                    compared = differ(x[number], weights[block], top, left, channels, differing)
                    word = 0
                    for lane in range(WORD):
                        word |= int(compared - 2 * differing[lane] >= thresholds[block, lane]) << lane
                    made[number, row, column, block] = word


@njit(nogil=True)
def sums_kernel(x: Array, made: Array, weights: Array, channels: int, stride: int, padding: int) -> None:
    """Write the sums into `made` [N, H, W, outputs]."""
    differing = np.empty(WORD, np.int64)
    for block in range(len(weights)):
        for number in range(len(x)):
            for row in range(made.shape[1]):
                for column in range(made.shape[2]):
                    top, left = row * stride - padding, column * stride - padding
                    compared = differ(x[number], weights[block], top, left, channels, differing)
                    for lane in range(min(WORD, made.shape[3] - block * WORD)):
                        made[number, row, column, block * WORD + lane] = compared - 2 * differing[lane]


@njit(nogil=True)
def reach_kernel(values: Array, made: Array, thresholds: Array) -> None:
    """Write into `made` [rows, words] whether each value [rows, channels] is at least its threshold [channels]."""
    for number in range(len(values)):
        for place in range(made.shape[1]):
            word = 0
            for lane in range(min(WORD, values.shape[1] - place * WORD)):
                channel = place * WORD + lane
                word |= int(values[number, channel] >= thresholds[channel]) << lane
            made[number, place] = word


def fire(x: Tensor, weights: Tensor, thresholds: Tensor, channels: int, stride: int, padding: int) -> Tensor:
    """Bits [N, H, W, blocks]: whether the sum over a window of x is at least the output's threshold [blocks, 64]."""
    made = np.empty((len(x), *out_size(x, weights, stride, padding), len(weights)), np.int64)
    work = made.size * weights[0].numel()
    in_threads(fire_kernel, work, rows_of(x), made, rows_of(weights), thresholds.numpy(), channels, stride, padding)
    return torch.from_numpy(made)


def sums(x: Tensor, weights: Tensor, outputs: int, channels: int, stride: int, padding: int) -> Tensor:
    """The sum over each window of x, float32 [N, H, W, outputs]; exact integers."""
    made = np.empty((len(x), *out_size(x, weights, stride, padding), outputs), np.float32)
    work = made.size // outputs * weights.numel()
    in_threads(sums_kernel, work, rows_of(x), made, rows_of(weights), channels, stride, padding)
    return torch.from_numpy(made)


def reach(values: Tensor, thresholds: Tensor) -> Tensor:
    """Bits [N, H, W, words]: whether each value [N, H, W, C] is at least its channel's threshold [C]."""
    *places, channels = values.shape
    made = np.empty((*places, -(-channels // WORD)), np.int64)
    flat = values.contiguous().numpy().reshape(-1, channels)
    in_threads(reach_kernel, flat.size, flat, made.reshape(-1, made.shape[-1]), thresholds.numpy())
    return torch.from_numpy(made)


def rows_of(bits: Tensor) -> Array:
    """Activations or weights [N, H, W, words, …] as contiguous [N, H, W · words, …]."""
    return bits.contiguous().flatten(2, 3).numpy()


def out_size(x: Tensor, weights: Tensor, stride: int, padding: int) -> Sequence[int]:
    """Output height and width of a convolution of x."""
    return [(x.shape[side] + 2 * padding - weights.shape[side]) // stride + 1 for side in (1, 2)]


def in_threads(kernel: Callable[..., None], work: int, given: Array, made: Array, *rest: object) -> None:
    """Run `kernel` on parts of `given` and `made` in threads, at most torch's number and one per `ENOUGH` of `work`."""
    parts = min(torch.get_num_threads(), len(given), 1 + work // ENOUGH)
    if parts <= 1:
        kernel(given, made, *rest)
        return
    with ThreadPoolExecutor(parts) as pool:  # kernels release the GIL
        pairs = zip(np.array_split(given, parts), np.array_split(made, parts), strict=True)
        list(pool.map(lambda pair: kernel(*pair, *rest), pairs))
