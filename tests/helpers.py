"""What test modules share: the type of the command line, run directories, and the words and lines of a figure."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from torch import Tensor, nn

from trustml_cli.cli.main import main
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.sweeps.callback import SweepCallback
from trustml_cli.system.hardware import Hardware, Precision, seeded
from trustml_cli.tasks.context import Context

CPU = Hardware(torch.device("cpu"), Precision.fp32)


@dataclass(frozen=True)
class Reader:
    """The reader of a data set, with a directory for what it decodes once."""

    source: DatasetSource
    cache_dir: Path

    def load(self) -> Dataset:
        return self.source.load(self.cache_dir)


FRESH: dict[str, Any] = {"checkpoint": None, "checkpoint_key": None, "checkpoint_prefix": None, "train": False}
"""The keys that all models share, for random weights."""


def save_classifier(folder: Path, preprocessing: bool = False, **names: str) -> None:
    """A hub folder with an image classifier of ten classes, whose outputs are named by `names`, as in _3="three"."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=10)
    config.id2label.update({int(number[1:]): name for number, name in names.items()})
    with seeded(0):
        ResNetForImageClassification(config).save_pretrained(folder)
    if preprocessing:
        ConvNextImageProcessor(size={"shortest_edge": 24}, image_mean=[0.2, 0.5, 0.7]).save_pretrained(folder)


NO_CACHE = Path(os.devnull)
"""Where data sets keep what they decode that decode nothing."""

TIMES = ["seconds", "images_per_second", "milliseconds_per_image"]
"""Columns that a clock decides; `run` names a directory by its time, too."""

Cli = Callable[..., subprocess.CompletedProcess[str]]
"""The fixtures `trustml` and `trustml_process`: words of a command line to exit status, output and errors."""

TrainedDigits = tuple[nn.Module, Tensor, Tensor]
"""The fixture `trained_digits`: a small network, and images and classes that it reads right."""

MakeContext = Callable[..., Context]
"""The fixture `make_context`: what a handler is given, with a seed and names of choices."""


def command(words: Sequence[str], folder: Path, env: Mapping[str, str]) -> int:
    """Run a command line in this process, in `folder` and with `env` besides; returns the exit status."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["trustml", *words])
            patch.setattr(SweepCallback, "exit_code", 0)
            patch.setattr(SweepCallback, "sweep", None)
            patch.delenv(SweepCallback.JOBS, raising=False)  # of an earlier sweep
            for name, value in {"HYDRA_FULL_ERROR": "0", **env}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main()
    finally:
        for handler in root.handlers[:]:
            if handler not in handlers:
                root.removeHandler(handler)
                with suppress(OSError):  # of a disk that is full
                    handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    return int(end.value.code or 0)


def runs(folder: Path) -> list[Path]:
    """The run directories below `folder`, in the order in which they began."""
    return sorted((path.parent for path in folder.rglob("run.json")), key=lambda run: facts(run)["started"])


def newest(folder: Path) -> Path:
    """The run directory below `folder` that began last."""
    return runs(folder)[-1]


def facts(run: Path) -> dict[str, Any]:
    """What run.json says."""
    content: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return content


def metrics(run: Path, **options: Any) -> pandas.DataFrame:
    """The table of a run; `options` go to pandas."""
    return pandas.read_csv(run / "metrics.csv", **options)


def leave_run(folder: Path, table: str = "", config: str = "", **facts: Any) -> None:
    """A run directory with this run.json, metrics.csv and config.yaml."""
    folder.mkdir(parents=True)
    known = {"task": "fgsm", "dataset": "digits", "model": "mlp", "seed": 0, "status": "completed",
             "started": f"2026-01-0{1 + len(list(folder.parent.iterdir()))}T12:00:00.000+00:00"}  # fmt: skip
    (folder / "run.json").write_text(json.dumps({**known, **facts}))
    if table:
        (folder / "metrics.csv").write_text(table)
    if config:
        (folder / "config.yaml").write_text(config)


def measured(trustml: Cli, folder: Path, data_dir: Path, *words: str) -> pandas.DataFrame:
    """The table of a run on the data sets in `data_dir`; `folder` is the test's own, where nothing else is running."""
    answer = trustml(*words, f"data_dir={data_dir}")
    assert answer.returncode == 0, answer.stderr
    return metrics(newest(folder))


def texts(figure: Figure) -> str:
    """Every word in a figure."""
    found = [figure.get_suptitle(), figure.get_supxlabel()]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
        found += [tick.get_text() for tick in axes.get_xticklabels()]
        if (legend := axes.get_legend()) is not None:
            found += [text.get_text() for text in legend.get_texts()]
    return "\n".join(found)


def points(axes: Axes, number: int) -> list[tuple[float, float]]:
    """The points of one of the lines in `axes`."""
    curve = axes.lines[number]
    return [(float(x), float(y)) for x, y in zip(curve.get_xdata(), curve.get_ydata(), strict=True)]  # type: ignore[arg-type]


def band(axes: Axes, number: int) -> list[tuple[float, float]]:
    """Both ends of one of the bands in `axes`, from left to right."""
    corners = axes.collections[number].get_paths()[0].vertices
    return [
        (float(corners[corners[:, 0] == x, 1].min()), float(corners[corners[:, 0] == x, 1].max()))
        for x in sorted(set(corners[:, 0]))
    ]


def whiskers(axes: Axes, number: int) -> list[tuple[float, float]]:
    """Both ends of each interval in one of the sets of error bars in `axes`, be they upright or lying."""
    sets = [each for each in axes.collections if isinstance(each, LineCollection)]
    ends = [
        segment[:, 1] if segment[0, 0] == segment[1, 0] else segment[:, 0] for segment in sets[number].get_segments()
    ]
    return [(float(low), float(high)) for low, high in ends]


def heights(axes: Axes) -> list[list[float]]:
    """The heights of the bars in `axes`, kind by kind."""
    kinds = [each for each in axes.containers if isinstance(each, BarContainer)]
    return [[float(bar.get_height()) for bar in bars.patches] for bars in kinds]


def drawn(axes: Axes) -> Any:
    """The values of the image in `axes`."""
    return np.asarray(axes.images[0].get_array())
