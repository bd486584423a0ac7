"""Memory that runs out: smaller batches where that changes nothing, else one line that says what to lower."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.configs import choices, composed
from tests.faults.whole import metrics_below
from tests.helpers import CPU, FRESH, Cli, facts, newest
from trustml_cli.data.dataset import Dataset
from trustml_cli.job import memory_hint
from trustml_cli.models.dense import Logistic
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import BatchSplitter, is_out_of_memory, report_out_of_memory
from trustml_cli.tasks.context import Context
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.predict import predict

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
ERRORS = {
    "cuda": CUDA,
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"),
    "onednn": RuntimeError("could not create a primitive"),
    "system": RuntimeError("unable to mmap 39321784 bytes from file: Cannot allocate memory (12)"),
    "mps": RuntimeError("MPS backend out of memory"),
    "python": MemoryError(),
    "numpy": np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype(float)),  # type: ignore[attr-defined]
}


class Narrow(nn.Module):
    """Has no memory for more than so many images."""

    def __init__(self, most: int, error: Exception = CUDA) -> None:
        super().__init__()
        self.most, self.error, self.asked = most, error, []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        if len(x) > self.most:
            raise self.error
        return x.flatten(1)[:, :2]


def batches(*sizes: int) -> Iterator[tuple[Tensor, Tensor]]:
    numbers = iter(torch.arange(sum(sizes)).split(list(sizes)))
    return ((n.float()[:, None], n) for n in numbers)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_batch_is_halved_until_it_fits_and_those_that_follow_are_cut(error: Exception) -> None:
    halving, asked = BatchSplitter(), []

    def work(x: Tensor, y: Tensor) -> Tensor:
        asked.append(len(x))
        if len(x) > 6:
            raise error
        assert torch.equal(x[:, 0], y.float())
        return y

    assert is_out_of_memory(error)
    assert torch.equal(torch.cat(list(halving.over(batches(20, 20, 3), work))), torch.arange(43))
    assert asked == [20, 10, 5, 5, 5, 5, 5, 5, 5, 5, 3]
    assert halving.size == 5


@pytest.mark.parametrize(("most", "error"), [(0, CUDA), (6, ValueError("shapes"))], ids=["one is too large", "other"])
def test_halving_ends_at_one_and_hides_no_other_error(most: int, error: Exception) -> None:
    narrow = Narrow(most, error)
    with pytest.raises(type(error)):
        list(BatchSplitter().over(batches(20), lambda x, y: narrow(x)))
    assert narrow.asked == ([20, 10, 5, 2, 1] if most == 0 else [20])


def test_where_memory_suffices_nothing_is_cut() -> None:
    halving = BatchSplitter()
    assert [len(y) for y in halving.over(batches(20, 3), lambda x, y: y)] == [20, 3]
    assert halving.size is None


def test_answers_are_the_same_in_smaller_batches(tiny_data: Dataset) -> None:
    narrow = Narrow(7)
    whole, halved = predict(Narrow(1000), tiny_data.test, CPU), predict(narrow, tiny_data.test, CPU)
    assert max(narrow.asked) == len(tiny_data.test) > 7
    assert torch.equal(whole.logits, halved.logits)
    assert torch.equal(whole.labels, halved.labels)


def test_only_a_lack_of_memory_is_told_as_one() -> None:
    with (
        pytest.raises(RunFailed, match=r"^memory ran out; lower trainer\.batch_size$"),
        report_out_of_memory("lower trainer.batch_size"),
    ):
        raise CUDA
    for error in (ValueError("shapes"), RuntimeError("shapes")):
        with pytest.raises(type(error), match="shapes"), report_out_of_memory("lower it"):
            raise error


KEYS = {
    "train": "trainer.batch_size (it is 64)",
    "explain": "task.images",
    "universal": "attack.training_images",
    "physical": "physical.training_images",
    "fooling": "task.noise_images",
}
TASKS = [
    pytest.param(task, marks=() if task in ("train", "explain") else pytest.mark.faults)
    for task in choices("task")
    if task != "overfit"  # its functions have a few dozen weights
]


@pytest.mark.parametrize("task", choices("task"))
def test_every_task_has_something_that_can_be_lowered(task: str) -> None:
    remedy = memory_hint(composed(f"task={task}"))
    assert (KEYS.get(task, "dataset.limit") if task != "train" else "dataset.limit") in remedy
    assert "trainer." not in remedy, "that is for training to name"


@pytest.mark.parametrize("task", TASKS)
def test_a_task_whose_memory_runs_out_names_what_to_lower(
    task: str, trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is memory until training begins or, for tasks that do something else, until it has ended."""
    scarce: list[bool] = []
    forward = nn.Linear.forward

    def linear(layer: nn.Linear, x: Tensor) -> Tensor:
        if scarce:
            raise CUDA
        return forward(layer, x)

    def then_scarce(method: Callable[..., object], before: bool) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            scarce.extend([True] * before)
            result = method(*given, **named)
            scarce.append(True)
            return result

        return call

    monkeypatch.setattr(nn.Linear, "forward", linear)
    training = task == "train"
    where, name = (GradientTrainer, "fit") if training else (Context, "train_or_load")
    monkeypatch.setattr(where, name, then_scarce(getattr(where, name), before=training))
    more = ["seed=1000"] if training else []  # which nobody has trained before
    answer = trustml(f"task={task}", "trainer=smoke", *more)
    assert answer.returncode == 1, answer.stderr
    (line,) = answer.stderr.splitlines()
    assert line.startswith("trustml: error: memory ran out; lower ")
    assert KEYS.get(task, "dataset.limit") in line
    assert facts(newest(tmp_path))["status"] == "failed"


def test_a_model_that_is_too_large_even_to_be_tried_is_no_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> Tensor:
        raise CUDA

    monkeypatch.setattr(nn.Linear, "forward", none)
    model = Logistic(normalization=Normalization.none, **FRESH)
    with pytest.raises(torch.OutOfMemoryError):
        model.build(InputSpec((1, 8, 8), 10, (0.0,), (1.0,)))


LIMITED = """
import resource, sys, torch.fx.experimental.symbolic_shapes  # a late import is no batch
import trustml_cli.cli.main
from pathlib import Path
from trustml_cli.tasks.robustness import RobustnessTask
from trustml_cli.training.gradient import GradientTrainer

def limit(cls, name):
    method = getattr(cls, name)
    def limited(*given, **named):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + LIMIT * 2**20, -1))
        try:
            return method(*given, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    setattr(cls, name, limited)

limit(RobustnessTask, "evaluate")
limit(GradientTrainer, "fit")
trustml_cli.cli.main.main()
"""


@pytest.mark.faults
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits what a process takes")
def test_a_process_that_may_take_no_more_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 140)):
        for number, name in enumerate(("dark", "bright")):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = (random.integers(0, 60, (128, 128, 3)) + 150 * number).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / split / name / f"{index}.png")
    data = ["dataset=image_folder", f"dataset.root={tmp_path}/pictures", "dataset.size=128", "model=cifar_cnn"]
    words = [*data, "trainer=smoke", "trainer.batch_size=4", "task.epsilon=0.1", "task.check_images=0"]

    def run(limit: int, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", LIMITED.replace("LIMIT ", f"{limit} "), *words, *more],
            cwd=tmp_path, env={**os.environ, "TRUSTML_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    plenty = run(100_000, "task=fgsm", "output_dir=plenty")
    assert plenty.returncode == 0, plenty.stderr
    assert "memory ran out" not in plenty.stdout
    # what malloc has kept, and can give again, differs from process to process: one of these limits is between
    for limit in (1000, 1300, 800, 1600, 600, 2000):
        scarce = run(limit, "task=fgsm", f"output_dir=scarce_{limit}")
        if scarce.returncode == 0 and "memory ran out: batches of 250 images were cut to" in scarce.stdout:
            break
        assert scarce.returncode == 0 or "trustml: error: memory ran out; lower " in scarce.stderr, scarce.stderr
    else:
        pytest.fail(f"no limit cut the batches: {scarce.stderr + scarce.stdout}")
    assert facts(newest(tmp_path / f"scarce_{limit}"))["batch_size"] < 250
    exact = ["clean_accuracy", "robust_accuracy", "attack_success_rate"]
    pandas.testing.assert_frame_equal(
        metrics_below(tmp_path / "plenty")[exact], metrics_below(tmp_path / f"scarce_{limit}")[exact]
    )
    hopeless = run(250, "task=fgsm", "trainer.batch_size=32", "output_dir=hopeless")
    assert hopeless.returncode == 1, hopeless.stdout
    (line,) = hopeless.stderr.splitlines()
    assert line.startswith("trustml: error: memory ran out; lower trainer.batch_size (it is 32)")
