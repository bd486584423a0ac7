"""What a run computes on, and how random numbers are made repeatable."""

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

    Attacks compute in fp32 whatever it is: in bf16 they would stop at images that fell for the rounded network only,
    and leave more of them standing than there are.
    """

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass(frozen=True)
class Hardware:
    """A device, the number format to compute in, and whether networks are compiled for it."""

    device: torch.device
    precision: Precision
    compile: bool = False

    def __post_init__(self) -> None:
        if self.compile and self.device.type == "cpu" and not find_compiler():
            raise ValueError("needs a C++ compiler on a CPU; install g++, or name one in CXX, or take compile=false")

    def autocast(self) -> torch.autocast:
        """Mixed precision where it was asked for; changes nothing for fp32."""
        dtype = torch.float16 if self.precision is Precision.fp16 else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision is not Precision.fp32)

    @property
    def arithmetic(self) -> str:
        """What the last digits of a sum depend on, and after many steps of training the first: the kind of device.

        On a CPU also the number of threads, each of which adds up a part.
        """
        return f"cpu, threads={torch.get_num_threads()}" if self.device.type == "cpu" else self.device.type

    def compiled(self, network: nn.Module) -> nn.Module:
        """The same network with the same weights, compiled where that was asked for."""
        return torch.compile(network) if self.compile else network  # type: ignore[return-value]


def find_compiler() -> str | None:
    """Where the C++ compiler is that `torch.compile` would call for a CPU; None if there is none."""
    return next(filter(None, map(shutil.which, [os.environ.get("CXX", "g++"), "clang++"])), None)


def devices_present() -> list[str]:
    """Names of the devices of this machine, best first."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def choose_device(name: str, job: int) -> torch.device:
    """The device called `name`. `auto` is the best there is; jobs of a multirun take the GPUs in turn.

    Raises ValueError, listing those present, where it is absent.
    """
    present = devices_present()
    if name == "auto":
        gpus = [device for device in present if device.startswith("cuda")]
        return torch.device(gpus[job % len(gpus)] if gpus else present[0])
    if name not in present and not (name == "cuda" and "cuda:0" in present):
        raise ValueError(f"no device {name!r} on this machine; there are auto, {', '.join(present)}")
    return torch.device(name)


def select_device(device: torch.device) -> None:
    """Make a GPU the current one, ready for work, so that nothing in this process asks for another by default."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.set_device(device.index or 0)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def make_deterministic(device: torch.device) -> None:
    """Ask torch for algorithms that give the same result every time; on a CPU those that networks use do anyway."""
    if device.type == "cpu":  # and asking costs more than a second: it imports torch's compiler
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass over every new tensor


def keep_freed_memory() -> None:
    """Have glibc keep what tensors give back instead of returning it to the system after each.

    Every step of a training or an attack asks for the same large blocks again; on two CPU cores, not faulting their
    pages in anew makes a training step about a quarter faster. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # the numbers of glibc's malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**28)


def release_freed_memory() -> None:
    """Have glibc return what tensors freed to the system.

    Up to 2.37 it cannot use the place of an aligned block again once something small lies beside it. Whoever keeps a
    few numbers of each batch would hold most of every batch with them (`benchmarks/growth.py` shows what is held).
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
    """Have a run for which memory runs out end with a line that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(f"memory ran out; {remedy}") from error


@dataclass
class BatchSplitter:
    """Goes over batches; where memory runs out it halves the batch, and cuts those that follow to that size.

    `size` is that size, None where memory did not run out.
    """

    size: int | None = None

    def over(self, batches: Iterable[tuple[Tensor, Tensor]], work: Callable[[Tensor, Tensor], T]) -> Iterator[T]:
        """What `work` makes of the inputs and labels of each batch. Raises what it raises for a batch of one."""
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
def seeded(seed: int) -> Iterator[None]:
    """Seed all random numbers inside with `seed`, and restore their states afterwards.

    Of several GPUs only the current one, which `select_device` chose, is restored: reading the state of the others
    would take memory on each, in every job.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = [torch.cuda.current_device()] if begun else []
    with torch.random.fork_rng(devices=gpus):
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
