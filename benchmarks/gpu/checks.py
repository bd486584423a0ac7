"""The parts of `benchmarks.gpu` that compare results; each yields its figures as it measures them."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from benchmarks.attacks import network
from benchmarks.gpu.rows import Row
from benchmarks.gpu.setup import Setup, resnet18, table
from trustml_cli.config.groups import config_folder
from trustml_cli.system.hardware import BatchSplitter

NEAR = 0.002  # 0.2 points: proportions that are no further apart are the same


def memory(setup: Setup) -> Iterator[Row]:
    """Batches are halved until they fit, and the logits stay the same."""
    device = torch.device(setup.device)
    side = 32 if setup.tiny else 64
    torch.manual_seed(0)
    model = (network() if setup.tiny else resnet18(side)).to(device).eval().requires_grad_(False)
    count = 12 if setup.tiny else 250
    x, y = torch.rand(2 * count, 3, side, side), torch.zeros(2 * count, dtype=torch.int64)

    def logits(splitter: BatchSplitter, asked: nn.Module) -> Tensor:
        parts = zip(x.split(count), y.split(count), strict=True)
        return torch.cat(list(splitter.over(parts, lambda x, _: asked(x.to(device)).cpu())))

    with torch.no_grad():
        whole = logits(BatchSplitter(), model)
        splitter = BatchSplitter()
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
            torch.cuda.empty_cache()
            limit = peak // 2
            torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(device).total_memory)
            torch.cuda.reset_peak_memory_stats()
            halved = logits(splitter, model)
            used = torch.cuda.max_memory_reserved()
            yield Row("memory with whole batches", peak / 1e6, "MB", 2 * count)
            yield Row("memory where half of it was allowed", used / 1e6, "MB", 2 * count, holds=used <= limit)
        else:
            halved = logits(splitter, Small(model, count // 3))
    apart = float((halved - whole).abs().max() / whole.std())
    yield Row("batch size after halving", splitter.size or count, "images", holds=(splitter.size or count) < count)
    yield Row("largest difference of the logits", apart, "of their spread", 2 * count, holds=apart < 1e-3)


class Small(nn.Module):
    """`model` on a device whose memory holds `most` images."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.model(x)  # type: ignore[no-any-return]


def smoke(setup: Setup) -> Iterator[Row]:
    """Every task with `trainer=smoke` on both devices, and an attack on the same weights; proportions are compared.

    Those of the same weights must agree to 0.2 points. Networks that are trained for a few steps on two devices, with
    other random numbers for dropout and noise, are not the same networks: how far apart they are is shown, not judged.
    """
    names = sorted(file.stem for file in (config_folder() / "task").glob("*.yaml"))
    if setup.tiny:
        names = ["attack", "train"]
    words = ["-m", f"task={','.join(names)}", "trainer=smoke"]
    if setup.tiny:
        words += ["dataset.limit=60", "model=logistic"]
    devices = {"cpu": "cpu", "gpu": setup.device}
    os.environ.setdefault("OMP_NUM_THREADS", "4")
    end = perf_counter() + setup.limit

    def on_both(name: str, *words: str, spare: float) -> dict[str, tuple[int, list[Path]]]:
        """Run a command line on both devices at once, until `spare` seconds before the limit."""
        left = end - perf_counter() - spare
        with ThreadPoolExecutor(2) as pool:
            begun = {
                short: pool.submit(setup.trustml, f"{name}-{short}", *words, device=device, seconds=left)
                for short, device in devices.items()
            }
        return {short: future.result() for short, future in begun.items()}

    runs: dict[str, dict[str, Path]] = {}
    for short, (code, found) in on_both("smoke", *words, spare=45).items():
        facts = {run: json.loads((run / "run.json").read_text()) for run in found}
        failed = [f"{fact['task']}: {fact.get('error')}" for fact in facts.values() if fact["status"] != "completed"]
        yield Row(f"tasks completed on {devices[short]}", len(found) - len(failed), "", len(names), "; ".join(failed),
                  holds=code == 0 and not failed)  # fmt: skip
        runs[short] = {fact["task"]: run for run, fact in facts.items() if fact["status"] == "completed"}
    yield from compared({task: (run, runs["gpu"][task]) for task, run in runs["cpu"].items() if task in runs["gpu"]})
    if "train" in runs["cpu"]:
        key = json.loads((runs["cpu"]["train"] / "run.json").read_text())["model_key"]
        weights = setup.cache / "models" / key / "model.safetensors"
        same = on_both("weights", "task=attack", f"model.checkpoint={weights}", "attack.random_start=false",
                       "task.check_images=0", "task.epsilon=[0,0.02,0.05,0.1]", *words[3:], spare=5)  # fmt: skip
        cpu, gpu = (found for _, found in same.values())
        if cpu and gpu:
            yield from compared({"PGD on the same weights": (cpu[-1], gpu[-1])}, within=NEAR)


def compared(pairs: dict[str, tuple[Path, Path]], within: float | None = None) -> Iterator[Row]:
    """How far apart the proportions of pairs of runs are, row by row.

    They must agree to `within` or one image; where that is None, nothing must.
    """
    for name, (cpu, gpu) in pairs.items():
        found = [pair for rows in zip(table(cpu), table(gpu), strict=False) for pair in proportions(*rows)]
        gaps = [pair.gap for pair in found]
        far = [pair for pair in found if (not pair.overlap if within is None else pair.gap > max(within, 1 / pair.n))]
        holds = None if within is None else not far
        near = sum(gap <= NEAR for gap in gaps)
        note = "; ".join([f"{near} within {100 * NEAR:.1f}", *(f"{pair.column} {pair.values}" for pair in far[:6])])
        yield Row(f"{name}: largest difference of a proportion", 100 * max(gaps, default=0.0), "points", len(found),
                  note, holds=holds)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A proportion on two devices: the distance of the two, and whether their intervals overlap."""

    column: str
    values: str
    gap: float
    n: int
    overlap: bool


def proportions(ours: dict[str, str], theirs: dict[str, str]) -> Iterator[Pair]:
    """The values of two rows of metrics.csv that have an interval within [0, 1]."""
    for column in (key.removesuffix("_ci_low") for key in ours if key.endswith("_ci_low")):
        parts = [column, f"{column}_ci_low", f"{column}_ci_high", f"{column}_n"]
        if not all(row.get(part) for row in (ours, theirs) for part in (parts if f"{column}_n" in row else parts[:3])):
            continue
        (here, low, high), (there, other_low, other_high) = (
            [float(row[part]) for part in parts[:3]] for row in (ours, theirs)
        )
        n = int(float(ours.get(f"{column}_n") or 1e9))
        if min(low, other_low) < 0 or max(high, other_high) > 1:
            continue
        overlap = max(low, other_low) <= min(high, other_high)
        yield Pair(column, f"{here:.4f} and {there:.4f}", round(abs(here - there), 9), n, overlap)


def robust(setup: Setup) -> Iterator[Row]:
    """Adversarial training on MNIST at 0.3 in fewer and larger batches than the paper's, under all of AutoAttack."""
    words = ["experiment=robust_mnist_pgd", "task.baseline=false", "trainer.epochs=12", "trainer.batch_size=256",
             "defence.steps=20", "defence.step_size=0.03", "task.check_images=0"]  # fmt: skip
    if setup.tiny:
        words = ["experiment=robust_mnist_pgd", "task.baseline=false", "dataset=digits", "dataset.limit=40"]
        words += ["model=logistic", "trainer.epochs=1", "trainer.batch_size=20", "defence.steps=2", "task.images=10"]
        words += ["attack.steps=2", "attack.queries=5", "task.check_images=0"]
    start = perf_counter()
    run = setup.run("robust", *words)
    for row in table(run):
        n = int(row["robust_accuracy_n"])
        at = f"at {float(row['epsilon']):.3g}"
        interval = f"{float(row['robust_accuracy_ci_low']):.4f} to {float(row['robust_accuracy_ci_high']):.4f}"
        yield Row(f"robust accuracy {at}", float(row["robust_accuracy"]), "", n, f"95 % interval {interval}")
        yield Row(f"seconds of the attack {at}", float(row["seconds"]), "s", n)
    seconds = [float(row["seconds"]) for row in table(run, "history")]
    yield Row("seconds of training", sum(seconds), "s", len(seconds), note="n epochs")
    yield Row("seconds of the command", perf_counter() - start, "s", 1)
