"""What all parts need: the data sets, the device, a clock, the command line and its tables."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from trustml_cli.config.groups import config_folder
from trustml_cli.config.instantiate import build
from trustml_cli.data.cifar10 import Cifar10
from trustml_cli.data.dataset import Dataset
from trustml_cli.data.digits import Digits
from trustml_cli.models.model import InputSpec


@dataclass(frozen=True)
class Setup:
    """Where data sets and results lie, the device, the seconds of the part, and whether to run on few digits."""

    data: Path
    work: Path
    device: str
    limit: float
    tiny: bool

    @property
    def cache(self) -> Path:
        """The cache that all parts share."""
        return self.work / "cache"

    def images(self) -> Dataset:
        """CIFAR-10, or digits if tiny."""
        if self.tiny:
            return Digits(test_fraction=0.25, limit=100).load(self.cache)
        return Cifar10(data_dir=self.data, limit=None).load(self.cache)

    def synchronize(self) -> None:
        """Wait until the device has done its work."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """How long `work` takes on the device."""
        self.synchronize()
        start = perf_counter()
        work()
        self.synchronize()
        return perf_counter() - start

    def trustml(
        self, name: str, *words: str, device: str | None = None, seconds: float | None = None
    ) -> tuple[int, list[Path]]:
        """Run a command line; returns its exit status and the directories of its runs in order.

        `name` is that of the folder for its results, and must be new. Its output goes to standard error. After
        `seconds` it is killed, and the exit status is 124.
        """
        folder = self.work / name
        places = [f"data_dir={self.data}", f"cache_dir={self.cache}", f"output_dir={folder}"]
        command = [sys.executable, "-m", "trustml_cli", *words, *places, f"device={device or self.device}"]
        try:
            code = subprocess.run(command, cwd=self.work, stdout=sys.stderr, check=False, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            code = 124
        facts = {file.parent: json.loads(file.read_text()) for file in folder.rglob("run.json")}
        return code, sorted(facts, key=lambda run: str(facts[run].get("started")))

    def run(self, name: str, *words: str) -> Path:
        """The directory of one run, which must have completed."""
        code, runs = self.trustml(name, *words)
        if code:
            raise RuntimeError(f"exit status {code} of trustml {' '.join(words)}")
        return runs[-1]


def table(run: Path, name: str = "metrics") -> list[dict[str, str]]:
    """A table of a run, row by row; empty where the run left none."""
    file = run / f"{name}.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def choice(group: str, name: str, **values: Any) -> Any:
    """The object of a YAML in conf/, with other `values`."""
    return build(OmegaConf.create({**OmegaConf.load(config_folder() / group / f"{name}.yaml"), **values}), group)


def resnet18(side: int) -> nn.Sequential:
    """An untrained ResNet-18 for colour images of `side` pixels and ten classes."""
    model = choice("model", "resnet18", normalization="symmetric")
    return model.build(InputSpec((3, side, side), 10, (0.5,) * 3, (0.25,) * 3))  # type: ignore[no-any-return]
