"""The Weights & Biases tracker: files below the output directory, or a server while the run goes on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from trustml_cli.results.trackers.tracker import Tracker
from trustml_cli.system.distribution import needing
from trustml_cli.system.errors import InputError, one_line


class Mode(Enum):
    """Where wandb writes."""

    offline = "offline"
    """To files, which `wandb sync` sends."""
    online = "online"
    """To the server that wandb is logged in to."""


@dataclass(kw_only=True)
class WandB(Tracker):
    """A wandb run in `project` of `entity` (None: the user's own): configuration, curves, metrics and plots.

    It is kept in `folder`/wandb. The machine, the program and its git repository are not described to wandb.
    """

    project: str
    entity: str | None
    mode: Mode
    folder: Path

    def start(self, folder: Path, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Begin the wandb run. Raises `InputError` if wandb cannot, e.g. online without a login."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # send no data that the user did not ask for
        with needing("wandb", "tracker=wandb"):
            import wandb
        self.folder.mkdir(parents=True, exist_ok=True)  # wandb would take a temporary folder instead
        settings = wandb.Settings(
            console="off", silent=True, save_code=False, disable_code=True, disable_git=True, disable_job_creation=True,
            x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=True,
        )  # fmt: skip
        try:
            self._run: Any = wandb.init(
                project=self.project, entity=self.entity, mode=self.mode.value, dir=str(self.folder), name=folder.name,
                notes=" ".join(facts.get("command", [])), config=dict(parameters), settings=settings,
                reinit="create_new",
            )  # fmt: skip
        except Exception as error:
            raise InputError(f"tracker.mode: wandb cannot begin a run {self.mode.value} ({one_line(error)})") from error
        self._run.define_metric("history/*", step_metric="epoch")  # a run may train several networks
        self._run.define_metric("iteration/*", step_metric="iteration")

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        self._run.log({**values, "epoch": number})

    def iterations(self, values: Mapping[int, Mapping[str, float]]) -> None:
        """Log the values of each iteration."""
        for step, measured in values.items():
            self._run.log({**measured, "iteration": step})

    def metrics(self, values: Mapping[str, float]) -> None:
        """Add values of the whole run to its summary."""
        self._run.summary.update(dict(values))

    def plot(self, name: str, file: Path) -> None:
        """Log a copy of the picture."""
        import wandb

        self._run.log({f"plots/{name}": wandb.Image(str(file))})

    def finish(self, status: str) -> None:
        """End the wandb run."""
        self._run.finish(exit_code=0 if status == "completed" else 1)
