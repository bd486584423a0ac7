"""Robust networks of RobustBench's model zoo, as they are."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from trustml_cli.models.model import InputSpec
from trustml_cli.models.pickled import NotWeights, check_pickled
from trustml_cli.models.pretrained import Pretrained, Published
from trustml_cli.system.errors import one_line
from trustml_cli.system.hardware import is_out_of_memory

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Benchmark(Enum):
    """The data set that a network of the zoo was trained on."""

    cifar10 = "cifar10"
    cifar100 = "cifar100"
    imagenet = "imagenet"


class ThreatModel(Enum):
    """What a network of the zoo is robust against."""

    Linf = "Linf"
    L2 = "L2"
    corruptions = "corruptions"


@contextmanager
def robustbench_errors() -> Iterator[None]:
    """Import robustbench inside, without its warnings; ValueError where it, or what it needs, is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports timm by old names
            yield
    except ImportError as error:
        raise ValueError(
            f"needs robustbench and what it imports ({one_line(error)}); install it from its repository, "
            "github.com/RobustBench/robustbench, as its README says"
        ) from error


@dataclass(frozen=True, kw_only=True)
class RobustBenchModel(Pretrained):
    """The network `name` of RobustBench (Croce et al. 2021, arXiv 2010.09670) for `benchmark` and `threat_model`.

    Its weights are read from `data_dir`/robustbench/BENCHMARK/THREAT_MODEL/NAME.pt, RobustBench's layout, and
    downloaded there if absent. It is taken as it is, with its own normalisation.
    """

    name: str
    benchmark: Benchmark
    threat_model: ThreatModel
    data_dir: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.entries()
        if self.name not in known:
            near = get_close_matches(self.name, known, n=3) or list(known)[:3]
            raise ValueError(
                f"name: RobustBench has no {self.name!r} for {self.benchmark.value} and {self.threat_model.value}; "
                f"near it are {', '.join(near)}"
            )

    def entries(self) -> dict[str, Any]:
        """The zoo's entries for the benchmark and threat model, by name."""
        with robustbench_errors():
            from robustbench.model_zoo import enums, model_dicts

        zoo = model_dicts[enums.BenchmarkDataset(self.benchmark.value)]
        return dict(zoo.get(enums.ThreatModel(self.threat_model.value), {}))

    @property
    def has_weights(self) -> bool:
        return True

    def network(self, inputs: InputSpec) -> nn.Module:
        raise ValueError("is taken as it is only; add trainer=none")

    def preprocessing(self) -> nn.Module:
        with robustbench_errors():
            from robustbench.data import get_preprocessing
            from robustbench.model_zoo import enums

        benchmark, threat = enums.BenchmarkDataset(self.benchmark.value), enums.ThreatModel(self.threat_model.value)
        steps = get_preprocessing(benchmark, threat, self.name, None).transforms
        return nn.Sequential(*(step for step in steps if isinstance(step, nn.Module)))  # the others convert files

    def files(self) -> dict[Path, str]:
        """The files of weights, several for an ensemble, with their numbers on the zoo's server."""
        numbers = self.entries()[self.name]["gdrive_id"] or []
        folder = self.data_dir / "robustbench" / self.benchmark.value / self.threat_model.value
        if isinstance(numbers, str):
            return {folder / f"{self.name}.pt": numbers}
        return {folder / f"{self.name}.pt_m{place}.pt": number for place, number in enumerate(numbers)}

    def fetch(self, file: Path, number: str) -> None:
        """Download a file of weights; raises ValueError where that fails."""
        from robustbench.utils import download_gdrive_new

        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            download_gdrive_new(number, file)
            why = "no file came"
        except Exception as error:  # another library's client raises anything
            why = one_line(error)
        if not file.is_file():
            raise ValueError(f"name: {file} is not there and could not be downloaded ({why}); put it there")

    def published(self) -> Published:
        with robustbench_errors():
            from robustbench import load_model

        for file, number in self.files().items():
            if not file.is_file():
                self.fetch(file, number)
            try:
                check_pickled(file)
            except (NotWeights, ValueError, OSError) as error:
                raise ValueError(f"name: {file} is not a weights-only file ({one_line(error)})") from error
        try:
            network = load_model(
                self.name, self.data_dir / "robustbench", self.benchmark.value, self.threat_model.value
            )
        except Exception as error:  # weights that do not fit make it raise anything
            if is_out_of_memory(error):
                raise
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"name: {self.name} cannot be read ({why})") from error
        return Published(network, self.preprocessing(), names_of(self.benchmark))


def names_of(benchmark: Benchmark) -> list[list[str]]:
    """The names of the outputs of networks for `benchmark`; none for CIFAR-100."""
    from torchvision.models import ResNet18_Weights

    if benchmark is Benchmark.cifar10:
        return [[name] for name in CIFAR10]
    if benchmark is Benchmark.imagenet:
        return [[name] for name in ResNet18_Weights.DEFAULT.meta["categories"]]
    return [[] for _ in range(100)]
