"""Time and memory of an attack and of training as images and widths grow, each point in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

IMAGES, WIDTH, CLASSES, EPOCHS = 1000, 512, 10, 2
STEPS = [(1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 1, 1), (64, 1, 1), (1, 4, 1), (1, 1, 100)]
"""Times the images, times the width, times the classes."""
PICTURE = Path(__file__).with_name("growth.png")


@dataclass(frozen=True)
class Point:
    """Processor seconds, and MB beyond what was held before, for a task at so many images, units and classes."""

    task: str
    images: int
    width: int
    classes: int
    seconds: float
    memory: float
    n: int


def growth(n: int) -> list[Point]:
    """Every point in a process of its own, in turn; medians of `n`."""
    place = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = []
    for task in ("fgsm", "train"):
        for images, width, classes in STEPS:
            sizes = (images * IMAGES, width * WIDTH, classes * CLASSES)
            command = [sys.executable, "-m", "benchmarks.growth", task, *map(str, sizes)]
            output = [
                json.loads(subprocess.run(command, env=place, check=True, capture_output=True).stdout) for _ in range(n)
            ]
            seconds, memory = (median(run[name] for run in output) for name in ("seconds", "memory"))
            found.append(Point(task, *sizes, seconds, memory, n))
    return found


def peak() -> float:
    """The most memory that this process has held, in MB."""
    # not getrusage: that counts what the process held that started this one
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def one(task: str, images: int, width: int, classes: int) -> dict[str, float]:
    """A network of one hidden layer on random images of 3×32×32, attacked or trained as a task does it."""
    from time import process_time

    import torch

    from benchmarks.networks import FRESH
    from trustml_cli.attacks.attack import Norm
    from trustml_cli.attacks.fgsm import FGSM
    from trustml_cli.attacks.measure import attack_curve
    from trustml_cli.data.batches import batches
    from trustml_cli.data.dataset import Dataset, InMemory
    from trustml_cli.models.dense import Mlp
    from trustml_cli.models.model import InputSpec, Normalization
    from trustml_cli.system.hardware import Hardware, Precision, keep_freed_memory, seed_everything
    from trustml_cli.training.gradient import GradientTrainer
    from trustml_cli.training.optimization import Optimizer, Schedule
    from trustml_cli.training.predict import BATCH

    seed_everything(0)
    keep_freed_memory()
    cpu = torch.device("cpu")
    inputs = InputSpec((3, 32, 32), classes, (0.5,) * 3, (0.25,) * 3)
    network = Mlp(hidden=[width], dropout=0.0, normalization=Normalization.dataset, **FRESH).build(inputs)
    before = peak()
    shape = (images, 3, 32, 32)
    split = InMemory(torch.randint(0, 256, shape, dtype=torch.uint8), torch.randint(0, classes, (images,)))
    start = process_time()
    if task == "fgsm":
        network.eval().requires_grad_(False)
        attack_curve(
            network, FGSM(norm=Norm.linf, target=None), batches(split, BATCH, cpu), [0.01, 0.02, 0.05], keep=10
        )
    else:
        trainer = GradientTrainer(
            epochs=EPOCHS, steps_per_epoch=None, batch_size=100, optimizer=Optimizer.adam, lr=0.001, momentum=0.9,
            weight_decay=0.0, schedule=Schedule.constant, label_smoothing=0.0, flip=False, crop_padding=0,
            patience=None, validation_fraction=0.1, channels_last=True, log_every=None, log_images=500,
        )  # fmt: skip
        data = Dataset(split, split.subset(torch.arange(100)), tuple(map(str, range(classes))), "", "")
        trainer.fit(network, data, Hardware(cpu, Precision.fp32), report=lambda epoch: None)
    return {"seconds": process_time() - start, "memory": peak() - before}


def draw(points: list[Point]) -> None:
    """Seconds and memory over images and over width, with the straight line through the first point."""
    from trustml_cli.plots.style import BLUE, GREY, ORANGE, new_figure, tidy

    figure, axes = new_figure(9, 6.4, rows=2, columns=2)
    for column, (axis, fixed) in enumerate((("images", "width"), ("width", "images"))):
        least = min(getattr(point, fixed) for point in points)
        few = [point for point in points if point.classes == CLASSES]
        for row, (value, unit) in enumerate((("seconds", "processor seconds"), ("memory", "memory, MB"))):
            panel = axes[row, column]
            for task, color, marker in (("fgsm", ORANGE, "o"), ("train", BLUE, "s")):
                line = [point for point in few if point.task == task and getattr(point, fixed) == least]
                places = [getattr(point, axis) for point in line]
                values = [getattr(point, value) for point in line]
                panel.plot(places, values, f"{marker}-", color=color, label=f"task={task}")
                straight = [values[0] * place / places[0] for place in places]
                panel.plot(places, straight, ":", color=color, label=None if task == "fgsm" else "in proportion")
            panel.set_xlim(left=0)
            panel.set_ylim(bottom=0)
            panel.legend(frameon=False, fontsize=8)
            tidy(panel, f"{value} over {axis}", f"{axis} ({fixed}: {least:,})", unit)
            panel.title.set_color(GREY)
    figure.savefig(PICTURE)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(one(sys.argv[1], *map(int, sys.argv[2:]))))
