"""A run that begins, and everything that can happen in one."""

from pathlib import Path

from matplotlib.figure import Figure

from trustml_cli.results.recorder import Recorder
from trustml_cli.training.trainer import Epoch, Iteration

CONFIG = "seed: 7\ntask:\n  epsilon: [0, 0.1]\n  examples: 10\ntrainer:\n  lr: 1e-05\n  patience: null\n"
CHOICES = {"task": "fgsm", "dataset": "digits", "model": "mlp", "attack": "fgsm", "tracker": "mlflow",
           "hydra/launcher": "basic", "experiment": None}  # fmt: skip


def recorder(folder: Path) -> Recorder:
    """A run that has begun."""
    record = Recorder(folder, CHOICES, seed=7, config=CONFIG, command=["trustml", "seed=7"])  # type: ignore[arg-type]
    record.start()
    return record


def within(step: int) -> Iteration:
    """What is logged within an epoch."""
    return Iteration(step=step, train_loss=1 / step, train_accuracy=0.5, test_loss=2.0, test_accuracy=0.25, lr=0.2)


def live(record: Recorder) -> None:
    """Everything that happens in a run: two networks of two epochs each, two rows, a plot, and its end."""
    for stage in ("clean", "poisoned"):
        for number in (1, 2):
            record.history(
                Epoch(epoch=number, step=4 * number, iterations=(within(4 * number - 2),), train_loss=1 / number,
                      train_accuracy=0.5, test_loss=0.25, test_accuracy=0.75, lr=0.1, seconds=2.0, images=64),
                stage=stage,
            )  # fmt: skip
    for epsilon in (0.0, 0.1):
        condition = {"attack": "fgsm", "epsilon": epsilon}
        record.metrics(condition, robust_accuracy=1 - 5 * epsilon, robust_accuracy_n=450, judged_by="itself")
    figure = Figure()
    figure.subplots().plot([0, 1])
    record.plot("curve", figure)
    record.finish("completed", 0)
