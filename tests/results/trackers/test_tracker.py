"""What every tracker is told, under which names, and that none can harm a run."""

import logging
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas
import pytest

from tests.configs import choices, composed
from tests.conftest import ROOT
from tests.results.trackers.run import live, recorder, within
from trustml_cli.config.instantiate import build
from trustml_cli.results.trackers.tracker import Tracker, epoch_values, metric_values
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import file_name


@dataclass
class Listener(Tracker):
    """Remembers what it is told, and fails where it is told to."""

    fails: str = ""
    heard: list[Any] = field(default_factory=list)

    def hear(self, event: str, *details: Any) -> None:
        self.heard.append((event, *details))
        if event == self.fails:
            raise OSError("the cable\nis cut")

    def start(self, folder: Path, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.hear("start", folder, dict(parameters))

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self.hear("epoch", number, dict(values))

    def iterations(self, values: Mapping[int, Mapping[str, float]]) -> None:
        self.hear("iterations", {step: dict(row) for step, row in values.items()})

    def metrics(self, values: Mapping[str, float]) -> None:
        self.hear("metrics", dict(values))

    def plot(self, name: str, file: Path) -> None:
        self.hear("plot", name, file.read_bytes()[:4])

    def finish(self, status: str) -> None:
        self.hear("finish", status)


def test_a_tracker_is_told_what_is_in_the_files(tmp_path: Path) -> None:
    record, listener = recorder(tmp_path), Listener()
    record.follow(listener)
    live(record)
    row = {"train_accuracy": 0.5, "test_loss": 0.25, "test_accuracy": 0.75, "lr": 0.1, "seconds": 2.0, "images": 64.0}
    parameters = {"task": "fgsm", "dataset": "digits", "model": "mlp", "attack": "fgsm", "seed": 7,
                  "task.epsilon": [0, 0.1], "task.examples": 10, "trainer.lr": 1e-05,
                  "trainer.patience": None}  # fmt: skip
    assert epoch_values(asdict(within(2)), "clean", "iteration")["iteration/clean/train_loss"] == 0.5
    assert listener.heard == [
        ("start", tmp_path, parameters),
        *(
            event
            for stage in ("clean", "poisoned")
            for number, values in ((1, {"train_loss": 1.0, **row}), (2, {"train_loss": 0.5, **row}))
            for event in (
                ("iterations", {4 * number - 2: epoch_values(asdict(within(4 * number - 2)), stage, "iteration")}),
                ("epoch", number, {f"history/{stage}/{name}": value for name, value in values.items()}),
            )
        ),
        ("metrics", {"robust_accuracy/fgsm/epsilon_0": 1.0, "robust_accuracy_n/fgsm/epsilon_0": 450.0}),
        ("metrics", {"robust_accuracy/fgsm/epsilon_0.1": 0.5, "robust_accuracy_n/fgsm/epsilon_0.1": 450.0}),
        ("plot", "curve", b"\x89PNG"),
        ("finish", "completed"),
    ]


@pytest.mark.parametrize("event", ["iterations", "epoch", "metrics", "plot", "finish"])
def test_a_tracker_that_fails_is_one_warning_and_nothing_is_lost(
    event: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    live(recorder(tmp_path / "without"))
    record, listener = recorder(tmp_path / "with"), Listener(fails=event)
    record.follow(listener)
    with caplog.at_level(logging.WARNING):
        live(record)
    assert caplog.messages == ["tracker failed (OSError: the cable is cut); the run goes on without it"]
    assert [heard[0] for heard in listener.heard].count(event) == 1
    assert listener.heard[-1][0] == event, "it is told nothing more"
    for name in ("metrics.csv", "history.csv", "plots/curve.png"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert '"status": "completed"' in (tmp_path / "with" / "run.json").read_text()


def test_the_tracker_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    assert record.own_choices == {"task": "fgsm", "dataset": "digits", "model": "mlp", "attack": "fgsm"}


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        ({}, {"test_accuracy": 0.5, "epochs": 2}, {"test_accuracy": 0.5, "epochs": 2.0}),
        ({"activation": "sign", "binary": True}, {"a": 1}, {"a/sign/binary_True": 1.0}),
        ({"trigger": "patch", "source": "1", "target": "cat"}, {"a": 1}, {"a/patch/source_1/cat": 1.0}),
        ({"method": "distill", "queries": 1000}, {"a": 1}, {"a/distill/queries_1000": 1.0}),
        ({"epsilon": 0.1 + 0.2}, {"a": 1, "b": None, "c": "word"}, {"a/epsilon_0.3": 1.0}),
        ({"stage": "base"}, {"p_../x": 1}, {f"{file_name('p_../x')}/base": 1.0}),
    ],
)
def test_a_condition_is_part_of_the_name(
    condition: dict[str, Any], values: dict[str, Any], expected: dict[str, float]
) -> None:
    assert metric_values(condition, values) == expected


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("name", [name for name in choices("tracker") if name in EXTRAS])
def test_a_package_that_is_missing_is_named_before_anything_begins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == name or module.endswith(name)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    config = composed(f"tracker={name}", f"output_dir={tmp_path}")
    with pytest.raises(InputError, match=rf"^tracker={name}: needs .*: pip install 'trustml-cli\[{name}]'"):
        recorder(tmp_path).follow(build(config.tracker, "tracker"))


@pytest.mark.parametrize("name", choices("tracker"))
@pytest.mark.usefixtures("mlflow_tables")
def test_every_tracker_lives_through_a_run_and_changes_no_file_of_it(name: str, tmp_path: Path) -> None:
    for one in (name, "without"):
        (tmp_path / one).mkdir()
        record = recorder(tmp_path / one)
        if one != "without":
            config = composed(f"tracker={name}", f"output_dir={tmp_path}")
            record.follow(build(config.tracker, "tracker"))
        live(record)
        assert (record.tracker is not None) == (one != "without"), "it did not fail"
    tables = [pandas.read_csv(tmp_path / one / "metrics.csv") for one in (name, "without")]
    pandas.testing.assert_frame_equal(*tables)
