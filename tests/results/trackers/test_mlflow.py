"""MLflow's own client finds what the files of the run say."""

import filecmp
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml

from tests.helpers import Cli
from tests.processes import at_once, wait_until
from tests.results.trackers.run import live, recorder
from trustml_cli.config.groups import flat
from trustml_cli.results.trackers.mlflow import MLflow, allowed
from trustml_cli.results.trackers.tracker import metric_values
from trustml_cli.system.errors import InputError

pytest.importorskip("mlflow")


def client(folder: Path) -> Any:
    """MLflow's own client on the file in `folder`."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def tracked(folder: Path) -> list[Any]:
    """The runs in the file in `folder`."""
    reader = client(folder)
    found = reader.get_experiment_by_name("trustml")
    return list(reader.search_runs([found.experiment_id]))


def assert_same(folder: Path, run: Any, directory: Path) -> None:
    """Parameters, metrics and artifacts of an MLflow run are those in a run directory."""
    config = flat(yaml.safe_load((directory / "config.yaml").read_text()))
    facts = json.loads((directory / "run.json").read_text())
    assert run.data.params == {allowed(name): str(value) for name, value in {**facts["choices"], **config}.items()}
    assert not any(name.startswith(("tracker", "hydra")) for name in run.data.params)

    expected = {}
    for row in pandas.read_csv(directory / "metrics.csv").to_dict("records"):
        condition = {name: row.pop(name) for name in facts.get("conditions", [])}
        values = {name: value for name, value in row.items() if name not in ("task", "dataset", "model", "seed")}
        expected |= metric_values(condition, values)
    final = {name: value for name, value in run.data.metrics.items() if not name.startswith(("history/", "iteration/"))}
    assert final == pytest.approx(
        {allowed(name): value for name, value in expected.items()}, abs=0, rel=1e-15, nan_ok=True
    )

    history = pandas.read_csv(directory / "history.csv")
    for stage, rows in history.groupby("network") if "network" in history else [(None, history)]:
        within = rows.images.isna()
        for kind, part, axis in (("history", rows[~within], "epoch"), ("iteration", rows[within], "step")):
            for name in set(part.dropna(axis="columns").columns) - {"network", "epoch", "step"}:
                key = f"{kind}/{f'{stage}/' if stage else ''}{name}"
                curve = client(folder).get_metric_history(run.info.run_id, key)
                assert [point.step for point in curve] == part[axis].tolist()
                assert [point.value for point in curve] == pytest.approx(part[name].tolist(), abs=0, rel=1e-15)

    copied = Path(client(folder).download_artifacts(run.info.run_id, ""))
    left = {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}
    assert {path.relative_to(copied) for path in copied.rglob("*") if path.is_file()} == left
    for path in left - {Path("trustml.log")}:  # which goes on after the copy
        assert filecmp.cmp(directory / path, copied / path, shallow=False), path


@pytest.mark.faults
@pytest.mark.usefixtures("mlflow_tables")
def test_a_sweep_is_read_back_as_its_files_have_it(trustml: Cli, tmp_path: Path) -> None:
    jobs = ["-m", "task=train,fgsm", "model=logistic", "trainer=smoke"]
    answer = trustml(*jobs, "tracker=mlflow", f"output_dir={tmp_path}/outputs")  # MLflow remembers relative places
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    outputs = tmp_path / "outputs"
    (sweep,) = (outputs / "multirun").iterdir()
    runs = {run.info.run_name: run for run in tracked(outputs)}
    assert sorted(runs) == ["model=logistic,task=fgsm,trainer=smoke", "model=logistic,task=train,trainer=smoke"]
    for name, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.data.tags["trustml.directory"] == str(sweep / name)
        assert run.data.tags["mlflow.source.name"].startswith("trustml ")
        assert_same(outputs, run, sweep / name)
    assert list(pandas.read_csv(sweep / "sweep.csv").columns[:5]) == ["task", "dataset", "model", "seed", "trainer"]
    assert "tracker" not in pandas.read_csv(sweep / "summary.csv").columns
    listed = trustml("runs", "--csv", "-").stdout.splitlines()
    assert len(listed) == 1 + 2, "the copies that MLflow keeps are no runs of their own"

    again = trustml(*jobs, f"hydra.sweep.dir={sweep}", "resume=true")
    assert again.stdout.count("completed before") == 2, "with another tracker they are the same jobs"


@pytest.mark.faults
@pytest.mark.usefixtures("mlflow_tables")
def test_a_run_that_failed_says_so(trustml: Cli, tmp_path: Path) -> None:
    words = ["trainer=smoke", "trainer.optimizer=sgd", "trainer.lr=1e30", "model=mlp", "tracker=mlflow"]
    assert trustml(*words, f"output_dir={tmp_path}/outputs").returncode == 1
    (run,) = tracked(tmp_path / "outputs")
    assert run.info.status == "FAILED"
    assert run.data.params["trainer.lr"] == "1e+30"


@pytest.mark.faults
def test_processes_that_begin_at_once_share_one_file(tmp_path: Path) -> None:
    """Nobody has made the tables yet."""

    def run(number: int) -> None:
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        record = recorder(folder)
        wait_until(lambda: len(list(tmp_path.glob("run*/run.json"))) == 2)
        record.follow(MLflow(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="trustml"))
        live(record)
        assert record.tracker is not None, "it did not fail"

    assert at_once(partial(run, 0), partial(run, 1)) == [0, 0]
    assert sorted(run.info.run_name for run in tracked(tmp_path)) == ["run0", "run1"]
    for each in tracked(tmp_path):
        assert each.info.status == "FINISHED"
        assert_same(tmp_path, each, tmp_path / str(each.info.run_name))


@pytest.mark.usefixtures("mlflow_tables")
def test_a_run_that_was_killed_is_called_so_when_it_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    tracker = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "trustml"}
    other, record = recorder(tmp_path / "other"), recorder(tmp_path / "run")
    other.follow(MLflow(**tracker))
    record.follow(MLflow(**tracker))
    record._at_work.close()  # as the end of its process does
    record.start(again=True)
    record.follow(MLflow(**tracker))
    live(record)
    other.metrics(nothing=math.nan)
    assert other.tracker is not None
    ended = sorted((run.info.run_name, run.info.status) for run in tracked(tmp_path))
    assert ended == [("other", "RUNNING"), ("run", "FINISHED"), ("run", "KILLED")]


@pytest.mark.parametrize("uri", ["nonsense://somewhere", "sqlite:////proc/no/such.db"])
def test_a_place_that_cannot_be_used_is_named_at_the_start(uri: str, tmp_path: Path) -> None:
    record = recorder(tmp_path)
    with pytest.raises(InputError, match=r"^tracker\.uri: MLflow cannot use "):
        record.follow(MLflow(uri=uri, experiment="trustml"))
    assert record.tracker is None


def test_names_keep_to_what_mlflow_allows() -> None:
    assert allowed("auroc/msp/ε=0.1, (größte)/a-b c:d") == "auroc/msp/ε_0.1_ _größte_/a-b c:d"
