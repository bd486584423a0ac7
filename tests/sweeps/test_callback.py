"""Multiruns: failures, resuming, and what is added up."""

import json
import re
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pandas
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from tests.helpers import Cli, facts, leave_run, runs
from trustml_cli.results.aggregate import read_runs
from trustml_cli.sweeps.callback import SweepCallback, finish_sweep
from trustml_cli.sweeps.resume import resumed_words
from trustml_cli.system.errors import InputError

FGSM = ["task=fgsm", "trainer=smoke", "model=logistic", "task.check_images=0", "task.images=60"]
SWEEP = ["-m", *FGSM, "seed=0,1", "task.epsilon=0.1,0.3"]
TRAIN = ["task=train", "trainer=smoke", "model=logistic"]


def only_sweep(tmp_path: Path) -> Path:
    (sweep,) = (tmp_path / "outputs" / "multirun").iterdir()
    return sweep


def test_a_sweep_adds_itself_up_although_jobs_failed(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(*SWEEP[:-1], "task.epsilon=0.1,-1,0.3")
    assert answer.returncode == 2
    assert "4 of 6 jobs completed" in answer.stdout
    assert answer.stderr.count("trustml: failed:") == 2
    assert answer.stdout.count("training model") <= 2  # one for each seed
    assert "job 6 of 6" in answer.stdout
    sweep = only_sweep(tmp_path)
    table, summary = pandas.read_csv(sweep / "sweep.csv"), pandas.read_csv(sweep / "summary.csv")
    assert sorted(table.status) == ["completed"] * 4 + ["failed"] * 2
    assert summary.epsilon.tolist() == [0.1, 0.3]
    assert summary.seeds.tolist() == [2, 2]
    by_hand = table[table.epsilon == 0.1].robust_accuracy
    assert summary.robust_accuracy[0] == pytest.approx(by_hand.mean())
    assert summary.robust_accuracy_std[0] == pytest.approx(by_hand.std())
    assert (sweep / "sweep.png").read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in sweep.iterdir() if path.is_dir()}
    assert "model=logistic,seed=0,task.check_images=0,task.epsilon=0.1,task.images=60,task=fgsm,trainer=smoke" in names


def test_resume_runs_what_failed_or_is_missing_and_nothing_else(trustml: Cli, tmp_path: Path) -> None:
    words = ["-m", *FGSM, "seed=0", "task.epsilon=0.1,0.2,0.3"]
    assert trustml(*words).returncode == 0
    sweep = only_sweep(tmp_path)
    before = pandas.read_csv(sweep / "sweep.csv").drop(columns="seconds")
    assert before.status.tolist() == ["completed"] * 3
    jobs = [run.name for run in runs(sweep)]
    (sweep / jobs[0] / "run.json").write_text(
        json.dumps({**facts(sweep / jobs[0]), "status": "running"})
    )  # as if killed
    shutil.rmtree(sweep / jobs[1])  # as if never begun
    for again, rest in (([*words, "resume=true"], jobs[2:]), (["resume", str(sweep)], jobs)):
        second = trustml(*again)
        assert second.returncode == 0, second.stderr
        found = re.findall("completed before: .*/(.*)", second.stdout)
        assert sorted(found) == sorted(rest)
        assert only_sweep(tmp_path) == sweep
        after = pandas.read_csv(sweep / "sweep.csv").drop(columns="seconds")
        pandas.testing.assert_frame_equal(before, after)


@pytest.mark.faults
def test_jobs_that_failed_are_the_only_ones_that_resuming_runs(trustml: Cli, tmp_path: Path) -> None:
    rows = ["age,sex,hired", *(f"{20 + row},{'fm'[row % 2]},{'no' if row % 3 else 'yes'}" for row in range(60))]
    for number in range(2):
        (tmp_path / f"people_{number}.csv").write_text("\n".join(rows[: 61 - number]))
    command = ["-m", *TRAIN, "dataset=csv", "dataset.label=hired", "dataset.positive=yes", "dataset.sensitive=sex",
               "dataset.path=people_0.csv,late.csv,people_1.csv"]  # fmt: skip
    first = trustml(*command)
    assert first.returncode == 2
    assert "2 of 3 jobs completed" in first.stdout
    named = [line for line in first.stderr.splitlines() if line.startswith("trustml: failed:")]
    assert len(named) == 1
    assert "late.csv" in named[0]
    sweep = only_sweep(tmp_path)
    assert pandas.read_csv(sweep / "sweep.csv").status.value_counts().to_dict() == {"completed": 2, "failed": 1}
    assert len(pandas.read_csv(sweep / "summary.csv")) == 2

    (tmp_path / "late.csv").write_text("\n".join(rows))
    second = trustml(*command, "resume=true")
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    assert "3 of 3 jobs completed" in second.stdout
    assert second.stdout.count("completed before") == 2
    assert len(re.findall(r"test_accuracy \d", second.stdout)) == 1
    assert pandas.read_csv(sweep / "sweep.csv").status.tolist() == ["completed"] * 3
    assert len(pandas.read_csv(sweep / "summary.csv")) == 3


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 2], 2), ([2, 1, 0], 1), ([0, None], 1), ([130, 2], 1), ([143, 0], 1), ([0], 1)],
)
def test_a_sweep_ends_with_the_worst_of_its_jobs(
    codes: list[int | None], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """1, of a job that was lost, is worse than 2, of one that was asked for something wrong."""
    monkeypatch.setenv(SweepCallback.JOBS, "2")
    for number, code in enumerate(codes):
        status = {0: "completed", None: "running"}.get(code, "failed")
        known = {
            "task": "train",
            "dataset": "digits",
            "model": "cnn",
            "seed": number,
            "job": number,
            "started": f"{number}",
        }
        (tmp_path / f"job{number}").mkdir()
        (tmp_path / f"job{number}" / "run.json").write_text(json.dumps({**known, "status": status, "exit_code": code}))
    assert finish_sweep(tmp_path, read_runs(tmp_path)) == expected
    out, err = capfd.readouterr()
    assert f"{codes.count(0)} of {max(2, len(codes))} jobs completed" in out
    assert [line.split(":")[1].strip() for line in err.splitlines()] == (
        ["1 of 2 jobs never began"] if codes == [0] else ["failed" if code else "killed" for code in codes if code != 0]
    )


@pytest.mark.faults
def test_older_runs_in_the_directory_are_no_jobs_of_this_command(trustml: Cli, tmp_path: Path) -> None:
    into = ["-m", *TRAIN, "seed=0,1", "hydra.sweep.dir=there"]
    assert trustml(*into).returncode == 0
    tables = {name: (tmp_path / "there" / name).read_bytes() for name in ("sweep.csv", "summary.csv", "index.html")}
    again = trustml(*into)
    assert again.returncode == 2
    assert "0 of 2 jobs completed" in again.stdout
    assert "seeds" not in again.stdout, "the older runs' table is none of this command's"
    assert again.stderr.count("trustml: failed: ") == again.stderr.count("holds a run already") / 2 == 2
    assert {name: (tmp_path / "there" / name).read_bytes() for name in tables} == tables


@pytest.mark.faults
def test_other_jobs_in_a_directory_with_older_runs_are_summed_up_alone(trustml: Cli, tmp_path: Path) -> None:
    into = ["-m", *TRAIN, "seed=0,1", "hydra.sweep.dir=there"]
    assert trustml(*into).returncode == 0
    other = trustml(*into, "trainer.epochs=1")
    assert other.returncode == 0
    assert "2 of 2 jobs completed" in other.stdout
    assert pandas.read_csv(tmp_path / "there" / "sweep.csv").seed.tolist() == [0, 1]
    some = trustml("-m", *TRAIN, "seed=1,2", "hydra.sweep.dir=there")
    assert some.returncode == 2
    assert "1 of 2 jobs completed" in some.stdout
    assert pandas.read_csv(tmp_path / "there" / "sweep.csv").status.tolist() == ["failed", "completed"]
    whole = trustml(*into, "resume=true")
    assert whole.returncode == 0
    assert "2 of 2 jobs completed" in whole.stdout
    assert not list((tmp_path / "there").glob(".jobs*"))


def test_a_job_leaves_nothing_in_memory_until_the_last_has_ended() -> None:
    done = JobReturn(cfg=DictConfig({"a": 1}), hydra_cfg=DictConfig({"b": 1}), status=JobStatus.COMPLETED)
    SweepCallback().on_job_end(DictConfig({}), done)
    assert done.cfg is None
    assert done.hydra_cfg is None


@pytest.mark.parametrize(
    ("words", "message"),
    [(["task=train", "resume=true"], "add -m"), (["resume=nowhere"], "nowhere is no sweep's directory")],
)
def test_a_resume_that_means_nothing_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resumed_words(words, [])


def test_overrides_may_stand_on_both_sides_of_a_flag(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=train", "-m", "seed=1", "--config-dir", ".", "trainer=smoke", "model=logistic")
    assert answer.returncode == 0, answer.stderr
    assert "1 of 1 jobs completed" in answer.stdout
    assert pandas.read_csv(only_sweep(tmp_path) / "sweep.csv").model.tolist() == ["logistic"]


def test_a_job_with_a_seed_that_means_nothing_is_one_line_and_hides_no_other(trustml: Cli) -> None:
    answer = trustml("-m", *TRAIN, "seed=${nope},1")
    assert answer.returncode == 2
    assert "1 of 2 jobs completed" in answer.stdout
    assert [line.split(":")[1].strip() for line in answer.stderr.splitlines()] == ["error", "failed"]
    assert all("'nope' not found" in line for line in answer.stderr.splitlines())


@pytest.mark.parametrize("words", [["task=train"], ["seed=0,1", "resume=false"]])
def test_commands_that_resume_nothing_are_left_as_they_are(words: list[str]) -> None:
    assert resumed_words(words, ["-m"]) == [*words, "-m"]


def test_a_sweep_that_ended_before_its_first_job_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = "hydra:\n  overrides:\n    task: [task=fgsm]\n    hydra: []\n"
    for name in ("earlier", "later"):
        (tmp_path / "outputs" / "multirun" / name / "job").mkdir(parents=True)
        (tmp_path / "outputs" / "multirun" / name / "multirun.yaml").write_text(command)
    (tmp_path / "outputs" / "multirun" / "earlier" / "job" / "run.json").write_text("{}")
    assert "hydra.sweep.dir='outputs/multirun/earlier'" in resumed_words(["task=fgsm", "resume=true"], ["-m"])


def test_resume_without_an_earlier_sweep_begins_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resumed_words(["seed=0,1", "resume=true"], ["-m"]) == ["seed=0,1", "resume=true", "-m"]


def test_what_cannot_be_summed_up_is_no_success(trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("trustml_cli.sweeps.callback.tabulate", full)
    answer = trustml("-m", *TRAIN, "seed=0,-1")
    assert answer.returncode == 1
    assert "could not be summed up: OSError: no space left on device" in answer.stderr
    assert "trustml: failed: " in answer.stderr  # the job that failed is named all the same
    assert "1 of 2 jobs completed" in answer.stdout


def test_a_sweep_whose_words_nobody_hears_is_summed_up_and_ends_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    leave_run(tmp_path / "a", "task,dataset,model,seed,accuracy\nfgsm,digits,mlp,0,0.5\n", headline="accuracy")
    leave_run(tmp_path / "b", status="failed", exit_code=2, error="task.epsilon: must be 0 or more")
    monkeypatch.setenv(SweepCallback.JOBS, "2")
    monkeypatch.setattr(SweepCallback, "exit_code", 0)
    monkeypatch.setattr("sys.stdout", Broken())
    monkeypatch.setattr("sys.stderr", Broken())
    SweepCallback().on_run_start(DictConfig({}))
    assert SweepCallback.exit_code == 1, "until it has come to its end"
    assert finish_sweep(tmp_path, read_runs(tmp_path)) == SweepCallback.exit_code == 2
    assert {"sweep.csv", "summary.csv", "sweep.png", "index.html"} <= {path.name for path in tmp_path.iterdir()}


def test_another_cache_is_no_reason_to_run_a_job_again(trustml: Cli, tmp_path: Path) -> None:
    words = ["-m", *TRAIN, "seed=1"]
    assert trustml(*words).returncode == 0
    answer = trustml(*words, "resume=true", env={"TRUSTML_CACHE_DIR": str(tmp_path / "elsewhere")})
    assert answer.stdout.count("completed before") == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_of_own_choices_comes_along(trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine" / "trainer").mkdir(parents=True)
    own = "defaults: [smoke, _self_]\nepochs: 1\n"
    (tmp_path / "mine" / "trainer" / "one.yaml").write_text(own)
    trustml("-m", "--config-dir", "mine", "task=train", "trainer=one", "model=logistic", "seed=5,-1")
    (sweep,) = (tmp_path / "outputs" / "multirun").iterdir()
    run = next(run for run in read_runs(sweep) if run.status == "completed")
    assert run.command.startswith("trustml --config-dir ")
    answer = trustml(f"resume={sweep}")
    assert answer.stdout.count("completed before") == 1
    assert "seed: must be at least 0" in answer.stderr
