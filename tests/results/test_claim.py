"""Directories: what of an earlier run is cleared, and what of the user's is never touched."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from tests.helpers import Cli, facts
from tests.results.test_recorder import recorder
from trustml_cli.results.claim import OURS, refuse_others_sweep
from trustml_cli.results.recorder import Recorder
from trustml_cli.system.errors import InputError

TRAIN = ["task=train", "trainer=smoke", "model=logistic"]
MINE = ("mydata.csv", "plots/holiday.png", "artifacts/weights.safetensors", "plots/.hidden", "notes/plots/a.png")


def contents(folder: Path) -> dict[str, str]:
    """Every file below, with what is in it."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def add_own(folder: Path, *names: str) -> dict[str, str]:
    """Files of the user's."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("mine")
    return dict.fromkeys(names, "mine")


def ended(folder: Path) -> Recorder:
    """A run that wrote a file of each kind, and failed."""
    record = recorder(folder)
    record.start()
    record.metrics(accuracy=0.9)
    record.table("layers", [{"layer": 1}])
    record.plot("curve", Figure())
    record.artifact("images", {"x": torch.zeros(1)})
    record.finish("failed", 2, error="told")
    return record


def test_a_run_that_is_done_again_removes_what_the_run_before_wrote_and_nothing_else(tmp_path: Path) -> None:
    known = facts(ended(tmp_path).directory)
    assert known["files"] == ["layers.csv", "plots/curve.png", "artifacts/images.safetensors"]
    (tmp_path / ".layers-01234567.csv").touch()
    (tmp_path / "plots" / ".curve-89abcdef.png").touch()
    own = add_own(tmp_path, *MINE, ".secret-01234567.csv", ".layers-notours.csv")
    again = recorder(tmp_path)
    again.start(again=True)
    left = contents(tmp_path)
    assert {name: left.pop(name) for name in own} == own
    assert sorted(left) == ["config.yaml", "run.json"]
    assert facts(tmp_path)["files"] == []


@pytest.mark.parametrize(
    "name", ["../x.csv", "/etc/x.csv", "plots/../../x.csv", "a/b.csv", ".x.csv", "x.py", "x.csv\0", ""]
)
def test_a_run_json_that_names_files_elsewhere_has_none_removed(name: str, tmp_path: Path) -> None:
    assert not OURS.fullmatch(name)
    assert OURS.fullmatch("plots/a b.png")
    run = tmp_path / "run"
    run.mkdir()
    ended(run)
    (tmp_path / "x.csv").write_text("mine")
    known = facts(run)
    (run / "run.json").write_text(json.dumps({**known, "files": [name, 5, "layers.csv"]}))
    recorder(run).start(again=True)
    assert (tmp_path / "x.csv").exists()
    assert not (run / "layers.csv").exists()


@pytest.mark.parametrize(
    "content",
    ["{}", '{"status": "running"}', "[]", "no JSON", '{"status": "failed", "trustml": "1", "command": ["x"]}'],
)
@pytest.mark.parametrize("again", [True, False])
def test_a_run_json_of_somebody_elses_is_left_alone_with_all_that_is_there(
    content: str, again: bool, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(content)
    add_own(tmp_path, *MINE, "metrics.csv")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=rf"^hydra\.run\.dir: {tmp_path} holds .*; choose another"):
        recorder(tmp_path).start(again=again)
    assert contents(tmp_path) == before


def test_a_run_json_that_was_being_claimed_is_no_obstacle_to_doing_it_again(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    with pytest.raises(InputError, match="holds a run already"):
        recorder(tmp_path).start()
    recorder(tmp_path).start(again=True)
    assert facts(tmp_path)["status"] == "running"


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.csv", "history.csv", "report.html", "plots/a.png", "artifacts/a"]
)
@pytest.mark.parametrize("again", [True, False])
def test_files_with_a_runs_names_but_no_run_are_not_written_over(name: str, again: bool, tmp_path: Path) -> None:
    own = add_own(tmp_path, name)
    held = name.partition("/")[0]
    with pytest.raises(InputError, match=rf"^hydra\.run\.dir: {tmp_path} holds {held} but no run"):
        recorder(tmp_path).start(again=again)
    assert contents(tmp_path) == own


@pytest.mark.parametrize("name", ["trustml.log", ".hydra", ".hydra/config.yaml", "plots", "artifacts"])
def test_nothing_is_written_through_a_link(name: str, trustml: Cli, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    if "." in name[1:]:
        aside.write_text("mine")
    else:
        add_own(tmp_path, "aside/curves.png", "aside/config.yaml")
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(aside)
    answer = trustml(*TRAIN, "hydra.run.dir=run")
    assert answer.returncode == 2
    assert answer.stderr == f"trustml: error: {link}: is a link, and nothing is written through one; remove it\n"
    assert set(contents(tmp_path).values()) == {"mine"}


@pytest.mark.parametrize("name", ["index.html", "sweep.csv", "multirun.yaml", ".submitit"])
def test_a_sweep_writes_over_nothing_that_is_not_a_sweeps(name: str, tmp_path: Path) -> None:
    refuse_others_sweep(tmp_path / "absent")
    add_own(tmp_path, "mine")
    (tmp_path / name).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=name):
        refuse_others_sweep(tmp_path)
    (tmp_path / name).unlink()
    add_own(tmp_path, *({"multirun.yaml", name} - {".submitit"}))
    refuse_others_sweep(tmp_path)


def test_a_sweep_into_a_folder_of_the_users_is_refused_before_anything_is_written(trustml: Cli, tmp_path: Path) -> None:
    own = add_own(tmp_path, "site/index.html", "site/sweep.csv")
    answer = trustml("-m", *TRAIN, "seed=0,1", "hydra.sweep.dir=site")
    assert answer.returncode == 2
    assert answer.stderr == (
        "trustml: error: hydra.sweep.dir: site holds sweep.csv but no sweep (multirun.yaml); choose "
        "another, or move it\n"
    )
    assert contents(tmp_path) == own


def test_resume_counts_where_it_was_typed_for_a_sweep_and_nowhere_else(trustml: Cli, tmp_path: Path) -> None:
    own = add_own(tmp_path, "run/mydata.csv")
    answer = trustml(*TRAIN, "++resume=true", "hydra.run.dir=run")
    assert (answer.returncode, answer.stderr.partition(":")[2][:15]) == (2, " error: resume:")
    assert (tmp_path / "run" / "mydata.csv").read_text() == own["run/mydata.csv"]


def test_a_job_that_slurm_took_back_begins_anew_in_its_directory_and_in_no_other(trustml: Cli, tmp_path: Path) -> None:
    taken_back: dict[str, Any] = {"env": {"SLURM_RESTART_COUNT": "1"}}
    words = [*TRAIN, "hydra.run.dir=run"]
    own = add_own(tmp_path, "run/mydata.csv")
    assert trustml(*words).returncode == 0
    first = facts(tmp_path / "run")
    assert "holds a run already" in trustml(*words).stderr
    assert "completed before" in trustml(*words, **taken_back).stdout
    (tmp_path / "run" / "run.json").write_text(json.dumps({**first, "status": "running"}))
    other = trustml(*words, "seed=1", **taken_back)
    assert (other.returncode, "holds a run already" in other.stderr) == (2, True)
    again = trustml(*words, **taken_back)
    assert again.returncode == 0, again.stderr
    assert facts(tmp_path / "run")["started"] > first["started"]
    assert (tmp_path / "run" / "mydata.csv").read_text() == own["run/mydata.csv"]
