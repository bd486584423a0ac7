"""The run directory: all files of a run are written here, atomically."""

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from trustml_cli.config.groups import flat
from trustml_cli.metrics.columns import ANSWERS, Better, Columns, declared
from trustml_cli.results.claim import FIRST, clear, earlier_run, refuse_others
from trustml_cli.results.csv_files import rows_as_csv
from trustml_cli.results.log_line import log_line
from trustml_cli.results.masking import masked
from trustml_cli.results.provenance import peak_memory, provenance
from trustml_cli.results.run_facts import read_facts
from trustml_cli.results.trackers.tracker import Tracker, epoch_values, metric_values
from trustml_cli.system.errors import FULL, InputError
from trustml_cli.system.files import (
    digest,
    file_name,
    is_in_use,
    is_there,
    mark_in_use,
    refuse_links,
    write_atomically,
    write_json,
)
from trustml_cli.system.yaml_text import parse_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from trustml_cli.training.trainer import Epoch

log = logging.getLogger(__name__)

DOES_NOT_COUNT = ("resume", "allow", "tracker")  # top-level keys that do not affect what is measured
WHERE = ("cache_dir", "output_dir")  # folders do not either, also within a data set; but config.yaml keeps them
BY_IMAGE = "by_image"


@dataclass(frozen=True)
class Check:
    """A condition that a result must satisfy to be trusted. `passed` is None if it does not apply."""

    name: str
    passed: bool | None
    figure: str


@dataclass
class Recorder:
    """Writes one run directory. `choices` holds the YAML chosen from each group of the config."""

    directory: Path
    choices: Mapping[str, str]
    seed: int
    config: str
    """The whole resolved configuration, as YAML."""
    command: Sequence[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    histories: "dict[str, list[Epoch]]" = field(default_factory=dict)
    """The epochs of each network by its stage, "" where a run trains one."""
    answers: "dict[str, Tensor]" = field(default_factory=dict)
    """The values by image behind the proportions and means of a row, by ROW.NAME; rows are counted from 0."""
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    write_page: Callable[[Path], object] | None = None
    """Writes report.html from the files in a run directory."""
    tracker: Tracker | None = None
    columns: Columns | None = None
    """The columns of metrics.csv that the task declares; None for a user's own task without a declaration."""
    began: bool = False
    """Whether this run has claimed the directory."""

    @property
    def identity(self) -> dict[str, Any]:
        """The columns with which every row of metrics.csv begins."""
        return {group: self.choices[group] for group in ("task", "dataset", "model")} | {"seed": self.seed}

    @property
    def subject(self) -> str:
        """What is measured, for the title of a plot: model, defence and calibrator if any, and data set."""
        defence, calibrator = (self.choices.get(group) or "none" for group in ("defence", "calibrator"))
        defended = f" defended by {defence}" if defence != "none" else ""
        calibrated = f" with calibrator {calibrator}" if calibrator != "none" else ""
        return f"{self.choices['model']}{defended}{calibrated} on {self.choices['dataset']}"

    @property
    def own_choices(self) -> dict[str, str]:
        """The choice of each group, except for Hydra's own groups and those that do not affect results."""
        taken = {group: choice for group, choice in self.choices.items() if choice is not None}
        return {group: taken[group] for group in taken if "/" not in group and group not in DOES_NOT_COUNT}

    @property
    def completed_before(self) -> bool:
        """Whether the directory holds a completed run with an identical configuration."""
        return self.begun_before and read_facts(self.directory).status == "completed"

    @property
    def begun_before(self) -> bool:
        """Whether the directory holds a run with an identical configuration, in any state."""
        return bool(read_facts(self.directory).get("config_digest") == self.config_digest)

    @property
    def config_digest(self) -> str:
        """A digest of the part of the configuration that affects what is measured."""
        values = flat(parse_yaml(self.config) or {})
        return digest({key: value for key, value in values.items() if key.rpartition(".")[2] not in WHERE})

    def start(self, again: bool = False) -> None:
        """Claim the directory: write run.json with status `running`, and config.yaml.

        Raises `InputError` if the directory already holds a run, unless `again`; then that run's files are removed, but
        not while it is still running. Files that no run of trustml wrote are neither removed nor overwritten.
        """
        self._clock = perf_counter()
        refuse_links(self.directory)
        if again and is_in_use(self.directory):
            raise InputError(f"resume: the run in {self.directory} is still at work; wait until it has ended")
        if not is_there(self.directory / "run.json"):
            refuse_others(self.directory)
        elif again:
            clear(self.directory, earlier_run(self.directory))
        self.facts |= {
            "status": "running",
            "command": list(self.command),
            **self.identity,
            "choices": self.own_choices,
            "tracker": self.choices.get("tracker"),
            "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **provenance(),
            "config_digest": self.config_digest,
            "files": [],
        }
        try:
            write_json(self.directory / "run.json", masked(self.facts), new=True)
        except FileExistsError:
            raise InputError(f"hydra.run.dir: {self.directory} holds a run already; choose another") from None
        self.began = True
        self._at_work = ExitStack()
        self._at_work.enter_context(mark_in_use(self.directory))
        write_atomically(self.directory / "config.yaml", lambda path: path.write_text(self.config, encoding="utf-8"))

    def follow(self, tracker: Tracker) -> None:
        """Send the run to `tracker` from here on. Raises `InputError` if that fails."""
        parameters = flat(OmegaConf.to_object(OmegaConf.create(self.config)))  # type: ignore[arg-type]
        tracker.start(self.directory, {**self.own_choices, **parameters}, masked(self.facts))
        self.tracker = tracker

    def note(self, **facts: Any) -> None:
        """Add facts to run.json."""
        self.facts |= facts
        self._write_facts()

    def finish(self, status: str, exit_code: int, error: str | None = None) -> None:
        """Write to run.json how the run ended, and write report.html if anything was computed.

        Does nothing if the run never began, because the directory may belong to another run.
        """
        if not self.began:
            return
        with self._at_work:
            try:
                self.facts |= {
                    "status": status,
                    "exit_code": exit_code,
                    **({"error": error} if error else {}),
                    "seconds": round(perf_counter() - self._clock, 3),
                    "peak_memory_mb": peak_memory(),
                }
                self._write_last_facts()
                if exit_code != 2 and self.write_page is not None:
                    self.write_page(self.directory)
            finally:
                self._track(lambda tracker: tracker.finish(status))

    def metrics(self, condition: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Append a row to metrics.csv: the run's identity, then `condition`, then the measured values.

        Logs the headline and the other `logged` values. Values by image (NAME_answers) go to
        artifacts/by_image.safetensors instead. Raises `LookupError` for a column that the task does not declare.
        """
        condition = condition or {}
        answers = {name: values.pop(name) for name in list(values) if name.endswith(ANSWERS)}
        if self.columns is not None:
            declared(self.columns, condition, condition=True)
            found = declared(self.columns, values)
            if main := next((name for name, each in found.items() if each.headline), None):
                self.note(headline=main)
            better = {name: each.better.value for name, each in found.items() if each.better is not Better.neither}
            if not better.keys() <= self.facts.get("better", {}).keys():
                self.note(better=self.facts.get("better", {}) | better)
            if line := log_line(condition, values, found):
                log.info("%s", line)
        if answers:
            self.answers |= {f"{len(self.rows)}.{name.removesuffix(ANSWERS)}": each for name, each in answers.items()}
            self.artifact(BY_IMAGE, self.answers)
        known = self.facts.get("conditions", [])
        if further := [name for name in condition if name not in known]:
            self.note(conditions=[*known, *further])
        self.rows.append({**self.identity, **condition, **values})
        begins = dict.fromkeys((*self.identity, *self.facts.get("conditions", [])))
        self._write_table("metrics.csv", [{**begins, **row} for row in self.rows])
        self._track(lambda tracker: tracker.metrics(metric_values(condition, values)))

    def history(self, epoch: "Epoch", stage: str | None = None) -> None:
        """Append the rows of `epoch` to history.csv; `stage` names the network where a run trains more than one.

        An epoch that is there already is that of a network which the run has asked for twice.
        """
        if epoch in self.histories.get(stage or "", []):
            return
        self.epochs += [{"network": stage, **row} for row in epoch.rows]
        self.histories.setdefault(stage or "", []).append(epoch)
        columns = dict.fromkeys(column for row in self.epochs for column in row)
        used = [column for column in columns if any(row.get(column) is not None for row in self.epochs)]
        self._write_table("history.csv", [{column: row.get(column) for column in used} for row in self.epochs])
        within = {each.step: epoch_values(asdict(each), stage, "iteration") for each in epoch.iterations}
        if within:
            self._track(lambda tracker: tracker.iterations(within))
        self._track(lambda tracker: tracker.epoch(epoch.epoch, epoch_values(epoch.values, stage)))

    def check(self, name: str, passed: bool | None, figure: str) -> None:
        """Record in run.json whether a condition holds that the result must satisfy to be trusted."""
        self.checks.append(Check(name, passed, figure))
        self.note(checks=[asdict(check) for check in self.checks])

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write NAME.csv: a table whose rows are not those of metrics.csv."""
        self._write_table(f"{file_name(name)}.csv", rows)

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Append rows, all with the same columns, to NAME.csv: a table that need not fit into memory."""
        path = self._own_file(f"{file_name(name)}.csv")
        text = rows_as_csv(rows, header=not path.exists())
        with path.open("a", encoding="utf-8") as file:
            file.write(text)

    def plot(self, name: str, figure: "Figure", on_page: bool = True) -> None:
        """Save a figure as plots/NAME.png, or as artifacts/NAME.png, which is not on the page."""
        from trustml_cli.plots.style import save

        path = self._own_file(f"{'plots' if on_page else 'artifacts'}/{file_name(name)}.png")
        write_atomically(path, lambda partial: save(figure, partial))
        self._track(lambda tracker: tracker.plot(name, path))

    def slider(self, condition: str, frames: Sequence[tuple[str, bytes, Sequence[tuple[str, bool]]]]) -> None:
        """Write artifacts/slider.json: for each value of `condition` a PNG of images, each with a caption.

        Beside each caption is whether it is right.
        """
        content = [
            {"value": value, "png": base64.b64encode(png).decode(), "captions": list(captions)}
            for value, png, captions in frames
        ]
        write_json(self._own_file("artifacts/slider.json"), {"condition": condition, "frames": content})

    def artifact(self, name: str, tensors: "Mapping[str, Tensor]") -> Path:
        """Save tensors as artifacts/NAME.safetensors; returns the file."""
        from safetensors.torch import save

        path = self._own_file(f"artifacts/{file_name(name)}.safetensors")
        # cloned, because safetensors refuses tensors that share memory
        whole = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        write_atomically(path, lambda partial: partial.write_bytes(save(whole)))
        return path

    def _track(self, tell: Callable[[Tracker], None]) -> None:
        """Call the tracker; after its first failure it is not called again."""
        if self.tracker is None:
            return
        try:
            tell(self.tracker)
        except Exception as error:
            self.tracker = None
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("tracker failed (%s); the run goes on without it", reason)
            log.debug("traceback", exc_info=True)

    def _write_facts(self) -> None:
        write_json(self.directory / "run.json", masked(self.facts))

    def _write_last_facts(self) -> None:
        """`_write_facts`; on a full disk, the earlier run.json is removed first to make room."""
        try:
            self._write_facts()
        except OSError as error:
            if error.errno not in FULL:
                raise
            (self.directory / "run.json").unlink()
            self._write_facts()

    def _write_table(self, name: str, rows: list[dict[str, Any]]) -> None:
        text = rows_as_csv(rows)
        write_atomically(self._own_file(name), lambda partial: partial.write_text(text, encoding="utf-8"))

    def _own_file(self, name: str) -> Path:
        """The path of a file of this run. run.json lists it before it is written, so that it can be removed later."""
        path = self.directory / name
        if path.parent != self.directory:
            path.parent.mkdir(exist_ok=True)
        if name not in (*FIRST, *self.facts.get("files", [])):
            self.note(files=[*self.facts.get("files", []), name])
        return path
