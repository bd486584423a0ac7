"""Devices, numeric precision, memory and seeding."""

import ctypes
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from trustml_cli.system.errors import RunFailed

T = TypeVar("T")


class Precision(Enum):
    """Number format of matrix products and convolutions; weights stay in fp32.

    Attacks always compute in fp32: in bf16 they would stop at images that are misclassified by the bf16 network only,
    and so overestimate robustness.
    """

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass(frozen=True)
class Hardware:
    """The device, the precision to compute in, and whether networks are compiled."""

    device: torch.device
    precision: Precision
    compile: bool = False

    def __post_init__(self) -> None:
        if self.compile and self.device.type == "cpu" and not find_compiler():
            raise ValueError("needs a C++ compiler on a CPU; install g++, or name one in CXX, or take compile=false")

    def autocast(self) -> torch.autocast:
        """Autocast context for mixed precision; a no-op for fp32."""
        dtype = torch.float16 if self.precision is Precision.fp16 else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision is not Precision.fp32)

    @property
    def arithmetic(self) -> str:
        """Name of the floating-point environment: the device type and, on a CPU, the number of threads.

        Both determine the order of summation, hence rounding, and after many training steps the weights.
        """
        return f"cpu, threads={torch.get_num_threads()}" if self.device.type == "cpu" else self.device.type

    def compiled(self, network: nn.Module) -> nn.Module:
        """`network`, wrapped by `torch.compile` with the same weights if `compile` is set."""
        return torch.compile(network) if self.compile else network  # type: ignore[return-value]


def find_compiler() -> str | None:
    """Path of the C++ compiler that `torch.compile` would call for a CPU; None if there is none."""
    return next(filter(None, map(shutil.which, [os.environ.get("CXX", "g++"), "clang++"])), None)


def devices_present() -> list[str]:
    """Names of the available devices, fastest first."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def choose_device(name: str, job: int) -> torch.device:
    """The device called `name`; `auto` chooses the fastest, and jobs of a multirun are assigned to GPUs in turn.

    Raises ValueError, listing the available devices, if `name` is not available.
    """
    present = devices_present()
    if name == "auto":
        gpus = [device for device in present if device.startswith("cuda")]
        return torch.device(gpus[job % len(gpus)] if gpus else present[0])
    if name not in present and not (name == "cuda" and "cuda:0" in present):
        raise ValueError(f"no device {name!r} on this machine; there are auto, {', '.join(present)}")
    return torch.device(name)


def select_device(device: torch.device) -> None:
    """Make a GPU the current device and initialise CUDA, so that this process uses no other GPU by default."""
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.set_device(device.index or 0)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def make_deterministic(device: torch.device) -> None:
    """Select deterministic algorithms, and fp32 without rounding to TF32; on a CPU both are so by default.

    cuDNN's convolutions in TF32 have a relative error of about 1e-3. An image that an attack brings just over the
    decision boundary would then depend on the images in its batch.
    """
    if device.type == "cpu":  # and the call would take more than a second: it imports torch's compiler
        return
    torch.backends.cudnn.allow_tf32 = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs this to be deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass over every new tensor


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system after each free.

    Every step of training or of an attack allocates the same large blocks. On two CPU cores, avoiding their page faults
    makes a training step about 25 % faster. Has no effect without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # constants of glibc's malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**28)


def release_freed_memory() -> None:
    """Make glibc return freed memory to the system.

    Up to version 2.37, glibc cannot reuse a freed aligned block that has a small live allocation beside it. Code that
    keeps a few numbers per batch would thus hold most of every batch's memory (measured by `benchmarks/growth.py`).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device or the machine has no memory left."""
    onednn = ("could not create a primitive", "could not create a memory object", "could not execute a primitive")
    words = ("out of memory", "can't allocate memory", "cannot allocate memory", *onednn)
    by_name = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return by_name or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words))


@contextmanager
def report_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error inside into a failed run whose one-line message ends with `remedy`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(f"memory ran out; {remedy}") from error


@dataclass
class BatchSplitter:
    """Iterates over batches; halves the batch size when memory runs out, and splits later batches to that size.

    `size` is the reduced batch size, None if memory has not run out.
    """

    size: int | None = None

    def over(self, batches: Iterable[tuple[Tensor, Tensor]], work: Callable[[Tensor, Tensor], T]) -> Iterator[T]:
        """Yield `work(inputs, labels)` for each batch. Out-of-memory errors for a batch of one are raised."""
        for x, y in batches:
            start = 0
            while start < len(x):
                now = slice(start, start + (self.size or len(x)))
                count = len(x[now])
                try:
                    done = work(x[now], y[now])
                except (RuntimeError, MemoryError) as error:
                    if count < 2 or not is_out_of_memory(error):
                        raise
                    self.size = count // 2
                    continue
                yield done
                start += count


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the states of all random number generators afterwards.

    With several GPUs only the state of the current one (see `select_device`) is restored: reading the others' states
    would allocate memory on each of them, in every job.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    begun = torch.cuda.is_initialized()
    gpus = [torch.cuda.current_device()] if begun else []
    with torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all random number generators inside with `seed`, and restore their states afterwards."""
    with random_state_kept():
        seed_everything(seed)
        yield
