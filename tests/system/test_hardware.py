"""Devices by name, and random numbers that repeat themselves without disturbing others."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from trustml_cli.system.hardware import (
    Hardware,
    Precision,
    choose_device,
    devices_present,
    find_compiler,
    make_deterministic,
    seed_everything,
    seeded,
    select_device,
)

Draw = tuple[float, float, float]


def draw() -> Draw:
    """One number from each stream that the package uses."""
    return random.random(), float(np.random.random()), torch.rand(()).item()


@pytest.fixture(autouse=True)
def streams_are_put_back() -> None:
    seed_everything(0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that this machine has such devices."""

    def pretend(*, gpus: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


def test_a_seed_repeats_all_streams_and_another_seed_does_not() -> None:
    drawn = []
    for seed in (5, 5, 6):
        seed_everything(seed)
        drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


def test_own_randomness_depends_on_its_seed_alone() -> None:
    drawn = []
    for outer in (1, 2):
        seed_everything(outer)
        with seeded(7):
            drawn.append(draw())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("fails", [False, True])
def test_own_randomness_leaves_the_outer_streams_as_they_were(fails: bool) -> None:
    seed_everything(1)
    undisturbed = [draw(), draw()]
    seed_everything(1)
    disturbed = [draw()]
    try:
        with seeded(7):
            assert draw() not in undisturbed
            if fails:
                raise ValueError("inside")
    except ValueError:
        assert fails
    disturbed.append(draw())
    assert disturbed == undisturbed


@pytest.mark.parametrize(("device", "asked"), [("cpu", False), ("cuda", True)])
def test_a_gpu_is_asked_for_algorithms_that_repeat_themselves_in_full_fp32(
    device: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "of somebody else")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    calls = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on, warn_only: calls.append((on, warn_only)))
    make_deterministic(torch.device(device))
    assert calls == [(True, True)] * asked
    assert torch.backends.cudnn.allow_tf32 is not asked


@pytest.mark.parametrize(
    ("gpus", "mps", "present"),
    [(0, False, ["cpu"]), (0, True, ["mps", "cpu"]), (2, False, ["cuda:0", "cuda:1", "cpu"])],
)
def test_the_best_device_is_first_and_taken_by_auto(
    machine: Callable[..., None], gpus: int, mps: bool, present: list[str]
) -> None:
    machine(gpus=gpus, mps=mps)
    assert devices_present() == present
    assert choose_device("auto", job=0) == torch.device(present[0])
    for name in present:
        assert choose_device(name, job=3) == torch.device(name)


def test_jobs_of_a_multirun_take_the_gpus_in_turn(machine: Callable[..., None]) -> None:
    machine(gpus=3, mps=False)
    assert [choose_device("auto", job).index for job in range(5)] == [0, 1, 2, 0, 1]
    assert choose_device("cuda", job=2) == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda:2", "mps", "tpu", "CPU", ""])
def test_an_absent_device_is_refused_with_those_present(machine: Callable[..., None], name: str) -> None:
    machine(gpus=2, mps=False)
    with pytest.raises(ValueError, match=rf"^no device '{name}' on this machine; there are auto, cuda:0, cuda:1, cpu$"):
        choose_device(name, job=0)


def test_cuda_is_refused_where_there_is_no_gpu(machine: Callable[..., None]) -> None:
    machine(gpus=0, mps=False)
    with pytest.raises(ValueError, match=r"no device 'cuda' on this machine; there are auto, cpu$"):
        choose_device("cuda", job=0)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [(Precision.fp32, torch.float32), (Precision.bf16, torch.bfloat16), (Precision.fp16, torch.float16)],
)
def test_products_are_computed_in_the_precision_asked_for(precision: Precision, dtype: torch.dtype) -> None:
    x = torch.ones(2, 2)
    with Hardware(torch.device("cpu"), precision).autocast():
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


@pytest.mark.faults
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_a_compiled_network_answers_alike_and_learns_the_same_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.rand(4, 8, requires_grad=True)
    compiled = Hardware(torch.device("cpu"), Precision.fp32, compile=True).compiled(network)
    assert compiled is not network
    torch.testing.assert_close(compiled(x), network(x))
    ours, theirs = (torch.autograd.grad(asked(x).square().sum(), x)[0] for asked in (compiled, network))
    torch.testing.assert_close(ours, theirs)
    assert all(ours is theirs for ours, theirs in zip(compiled.parameters(), network.parameters(), strict=True))


def test_a_network_is_compiled_where_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    network, compiled = nn.Linear(8, 2), nn.Linear(8, 2)
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network: (asked.append(network), compiled)[1])
    monkeypatch.setattr("trustml_cli.system.hardware.find_compiler", lambda: "g++")
    assert Hardware(torch.device("cpu"), Precision.fp32).compiled(network) is network
    assert asked == []
    assert Hardware(torch.device("cpu"), Precision.fp32, compile=True).compiled(network) is compiled
    assert asked == [network]


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        Hardware(torch.device("cpu"), Precision.fp32, compile=True)
    Hardware(torch.device("cpu"), Precision.fp32)


def test_randomness_of_its_own_asks_one_gpu_of_several(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(gpus=8, mps=False)
    asked: list[int] = []
    states = {number: torch.tensor([number], dtype=torch.uint8) for number in range(8)}

    def state(number: int) -> torch.Tensor:
        asked.append(number)
        return states[number]

    current = []
    monkeypatch.setattr(torch.cuda, "init", lambda: monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "get_rng_state", state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda kept, number: asked.append(10 + int(kept)))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    with seeded(0):
        assert asked == [], "a GPU that nobody uses is not begun on"
    select_device(torch.device("cuda:5"))
    with seeded(0):
        assert asked == [5]
    assert asked == [5, 15], "and its state is put back"
    select_device(torch.device("cuda"))
    assert current == [5, 0]
