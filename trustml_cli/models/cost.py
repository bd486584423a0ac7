"""Memory and time of each layer of a bit-packed network, compared with the same network in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from trustml_cli.models.model import shape_text


@dataclass(frozen=True)
class Cost:
    """The costs of one layer, with its BatchNorm and sign, in float32 (torch) and packed.

    Bytes are those of parameters and buffers; activation bytes are those of the output for one image. Milliseconds are
    medians over `n` runs of each form, alternating, on a batch of `batch` images, on `threads` threads.
    """

    layer: str
    kind: str
    shape: str
    float32_bytes: int
    packed_bytes: int
    memory_ratio: float
    float32_ms: float
    packed_ms: float
    speedup: float
    n: int
    batch: int
    threads: int
    computes_in: str
    """The arithmetic of the packed form: `bits`, `float32` for the first layer (its input is pixels), or `both`."""
    float32_activation_bytes: int
    packed_activation_bytes: int


@torch.no_grad()
def costs(floats: Sequence[nn.Sequential], packed: nn.Sequential, x: Tensor, n: int) -> list[Cost]:
    """A row for each layer of `packed` and the float32 layer that it replaces, and one for the whole network."""
    rows, of_floats, of_bits = [], x, x
    for number, (layer, bits) in enumerate(zip(floats, packed, strict=True), start=1):
        rows.append(cost(str(number), kind(layer), layer, bits, of_floats, of_bits, n))
        of_floats, of_bits = layer(of_floats), bits(of_bits)
    return [*rows, cost("all", "network", nn.Sequential(*floats), packed, x, x, n)]


def cost(name: str, what: str, layer: nn.Module, bits: nn.Module, of_floats: Tensor, of_bits: Tensor, n: int) -> Cost:
    """One row; each form has its own input, `of_floats` or `of_bits`."""
    made, made_bits = layer(of_floats), bits(of_bits)  # run once before timing, to compile the kernels
    float32_ms, packed_ms = in_turn([lambda: layer(of_floats), lambda: bits(of_bits)], n)
    float32_bytes, packed_bytes = held(layer), held(bits)
    return Cost(
        layer=name,
        kind=what,
        shape=f"{shape_text(tuple(of_floats.shape[1:]))} → {shape_text(tuple(made.shape[1:]))}",
        float32_bytes=float32_bytes,
        packed_bytes=packed_bytes,
        memory_ratio=float32_bytes / packed_bytes,
        float32_ms=float32_ms,
        packed_ms=packed_ms,
        speedup=float32_ms / packed_ms,
        n=n,
        batch=len(of_floats),
        threads=torch.get_num_threads(),
        computes_in="both" if name == "all" else "bits" if of_bits.dtype == torch.int64 else "float32",
        float32_activation_bytes=made[0].nbytes,
        packed_activation_bytes=made_bits[0].nbytes,
    )


def kind(layer: nn.Sequential) -> str:
    """The kind of a layer as text: 'linear' or, for example, 'convolution 3×3, stride 2'."""
    for part in layer:
        if isinstance(part, nn.Conv2d):
            return f"convolution {shape_text(part.kernel_size)}, stride {part.stride[0]}"
    return "linear"


def held(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, without BatchNorm's batch counters."""
    return sum(value.nbytes for name, value in module.state_dict().items() if "num_batches" not in name)


def in_turn(runs: Sequence[Callable[[], object]], n: int) -> list[float]:
    """Median milliseconds of each of `runs`, each timed `n` times, alternating."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(n):
        for own, run in zip(times, runs, strict=True):
            start = perf_counter()
            run()
            own.append(1e3 * (perf_counter() - start))
    return [median(own) for own in times]
