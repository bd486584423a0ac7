"""What every tracker is, and the names under which it shows what was measured."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from trustml_cli.system.errors import InputError


@dataclass(kw_only=True)
class Tracker:
    """Shows a run elsewhere while it goes on. This one shows it nowhere; subclasses name their keys as fields.

    The recorder writes its files first and asks the tracker then, so that nothing depends on it: once a method other
    than `start` has raised anything, the run goes on without it.
    """

    def start(self, folder: Path, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """A run begins in `folder`; `facts` are those of run.json. Raises `InputError` if it cannot be shown."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """An epoch of training has ended."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Something was measured: a row of metrics.csv."""

    def plot(self, name: str, file: Path) -> None:
        """A plot was drawn; `file` is a PNG."""

    def finish(self, status: str) -> None:
        """The run has ended, `completed` or `failed`, and its folder is whole."""


def epoch_values(epoch: Mapping[str, Any], stage: str | None) -> dict[str, float]:
    """A row of history.csv as history/NAME or, where the network has a name, history/STAGE/NAME."""
    prefix = f"history/{stage}" if stage else "history"
    return {f"{prefix}/{name}": float(value) for name, value in numbers(epoch).items() if name != "epoch"}


def metric_values(condition: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a row of metrics.csv as NAME or, under a condition, NAME/fgsm/linf/epsilon_0.1.

    The condition is part of the name, for trackers know whole steps only; so the same measurement has the same name
    in every run, whatever else was measured there.
    """
    words = [f"{name}_{written(value)}" if is_number(value) else str(value) for name, value in condition.items()]
    return {"/".join([name, *words]): float(value) for name, value in numbers(values).items()}


def is_number(value: Any) -> bool:
    """Whether a value would say nothing without its name: a number, also as a word such as the class 3."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row that are numbers."""
    return {name: value for name, value in row.items() if isinstance(value, Real)}


def written(value: Any) -> str:
    """A value in a name: 0.1 rather than 0.10000000000000001."""
    return f"{value:g}" if isinstance(value, float) else str(value)


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Imports inside belong to an extra of ours; `InputError` says how to install it."""
    try:
        yield
    except ImportError as error:
        missing = error.name or str(error)
        raise InputError(f"tracker={extra}: needs {missing}; install it with: pip install '.[{extra}]'") from error
