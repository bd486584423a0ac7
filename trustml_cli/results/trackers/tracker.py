"""The base class of trackers, and the names under which they log values."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from trustml_cli.system.files import file_name


@dataclass(kw_only=True)
class Tracker:
    """Shows a run in progress elsewhere. The base class shows nothing; subclasses declare their config keys as fields.

    The recorder writes its files before it calls the tracker, so results never depend on it: after the first exception
    from a method other than `start`, the run continues without the tracker.
    """

    def start(self, folder: Path, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """A run begins in `folder`; `facts` are those of run.json. Raises `InputError` if it cannot be shown."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Called after each epoch of training."""

    def iterations(self, values: Mapping[int, Mapping[str, float]]) -> None:
        """Called with the values within an epoch by iteration, before those of the epoch, if they are logged."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Called for each row of metrics.csv."""

    def plot(self, name: str, file: Path) -> None:
        """Called for each plot; `file` is a PNG."""

    def finish(self, status: str) -> None:
        """Called when the run has ended, `completed` or `failed`, and its folder is complete."""


def epoch_values(epoch: Mapping[str, Any], stage: str | None, axis: str = "history") -> dict[str, float]:
    """A row of history.csv with names AXIS/NAME or, if the network has a name, AXIS/STAGE/NAME."""
    prefix = f"{axis}/{stage}" if stage else axis
    return {f"{prefix}/{name}": float(value) for name, value in numbers(epoch).items() if name not in ("epoch", "step")}


def metric_values(condition: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a row of metrics.csv with names NAME or, under a condition, NAME/fgsm/linf/epsilon_0.1.

    The condition is part of the name because trackers only have integer steps; so a measurement has the same name in
    every run, whatever else was measured.
    """
    words = [f"{name}_{written(value)}" if is_number(value) else str(value) for name, value in condition.items()]
    return {"/".join(map(one_part, [name, *words])): float(value) for name, value in numbers(values).items()}


def one_part(name: str) -> str:
    """A name from data as one part of a path; MLflow refuses a path that leads upwards."""
    return file_name(name) if "/" in name else name


def is_number(value: Any) -> bool:
    """Whether a value is a number, also as text such as the class 3, and needs its name to be understood."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row that are numbers."""
    return {name: value for name, value in row.items() if isinstance(value, Real)}


def written(value: Any) -> str:
    """A value as part of a name: 0.1 rather than 0.10000000000000001."""
    return f"{value:g}" if isinstance(value, float) else str(value)
