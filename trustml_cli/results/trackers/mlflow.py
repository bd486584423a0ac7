"""The MLflow tracker: logs to a server or, by default, to a local file that `mlflow ui` shows."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from trustml_cli.results.trackers.tracker import Tracker
from trustml_cli.system.distribution import needing
from trustml_cli.system.errors import InputError
from trustml_cli.system.locks import locked
from trustml_cli.system.owners import name_of_user

LOCAL = "sqlite:///"
ARTIFACTS = ".mlflow"  # beside a local file; hidden, because it holds copies of run directories
AT_ONCE = 100  # maximum number of parameters per MLflow call
METRICS_AT_ONCE = 1000
STATUS = {"completed": "FINISHED", "failed": "FAILED"}


@dataclass(kw_only=True)
class MLflow(Tracker):
    """An MLflow run in `experiment` at `uri`: parameters, metrics, and the run directory as artifacts."""

    uri: str
    experiment: str

    def start(self, folder: Path, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Create the MLflow run and the experiment; marks an earlier MLflow run of the same folder as killed."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # send no data that the user did not ask for
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # MLflow's default of seven retries takes minutes
        with needing("mlflow", "tracker=mlflow"):
            from mlflow.entities import Param
            from mlflow.tracking import MlflowClient
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # an unreachable server is reported once, below
        tags = {
            "trustml.directory": str(folder.absolute()),
            "mlflow.user": name_of_user(os.geteuid()),
            "mlflow.source.name": " ".join(facts.get("command", [])),
            "mlflow.source.git.commit": facts.get("git_commit"),
        }
        self._folder = folder
        try:
            with needing("mlflow", "tracker=mlflow"), alone(self.uri):  # only one process at a time creates the tables
                self._client = MlflowClient(self.uri)
                experiment = self._experiment_id()
            for stale in self._client.search_runs([experiment], "attributes.status = 'RUNNING'"):
                if stale.data.tags.get("trustml.directory") == tags["trustml.directory"]:
                    self._client.set_terminated(stale.info.run_id, "KILLED")
            run = self._client.create_run(
                experiment, run_name=folder.name, tags={name: tag for name, tag in tags.items() if tag}
            )
            self._run = run.info.run_id
            params = [Param(allowed(name), str(value)) for name, value in parameters.items()]
            for begin in range(0, len(params), AT_ONCE):
                self._client.log_batch(self._run, params=params[begin : begin + AT_ONCE])
        except InputError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise InputError(f"tracker.uri: MLflow cannot use {self.uri} ({text[:200]})") from error

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        self._log({number: values})

    def iterations(self, values: Mapping[int, Mapping[str, float]]) -> None:
        """Log the values of each iteration."""
        self._log(values)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log values of the whole run."""
        self._log({0: values})

    def finish(self, status: str) -> None:
        """Copy the run directory, plots included, and end the MLflow run."""
        self._client.log_artifacts(self._run, str(self._folder))
        self._client.set_terminated(self._run, STATUS[status])

    def _log(self, by_step: Mapping[int, Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time())
        metrics = [
            Metric(allowed(name), each, now, step) for step, row in by_step.items() for name, each in row.items()
        ]
        for begin in range(0, len(metrics), METRICS_AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + METRICS_AT_ONCE])

    def _experiment_id(self) -> str:
        """The id of the experiment, which is created if it does not exist."""
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        file = local_file(self.uri)
        location = None if file is None else (file.parent / ARTIFACTS).absolute().as_uri()
        try:
            return str(self._client.create_experiment(self.experiment, artifact_location=location))
        except Exception:
            found = self._client.get_experiment_by_name(self.experiment)  # another process has created it
            if found is None:
                raise
            return str(found.experiment_id)


def allowed(name: str) -> str:
    """A name restricted to the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def local_file(uri: str) -> Path | None:
    """The path of the SQLite file in `uri`; None if it is not a local file."""
    return Path(uri.removeprefix(LOCAL)) if uri.startswith(LOCAL) else None


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Mutual exclusion between processes if `uri` is a local file; creates its folder."""
    file = local_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f".{file.name}.lock")):
        yield
