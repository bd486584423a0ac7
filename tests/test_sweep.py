"""Multiruns through the real command line: failures, resuming, and what is added up."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest

from tests.helpers import Cli
from trustml_cli.choices import folder_name
from trustml_cli.errors import InputError
from trustml_cli.summary import read_runs
from trustml_cli.sweep import resumed_words

SWEEP = ["-m", "task=fgsm", "trainer=smoke", "model=mlp", "seed=0,1", "task.epsilon=0.1,0.3"]


def only_sweep(tmp_path: Path) -> Path:
    (sweep,) = (tmp_path / "outputs" / "multirun").iterdir()
    return sweep


def test_a_sweep_adds_itself_up_although_jobs_failed(trustml_process: Cli, tmp_path: Path) -> None:
    answer = trustml_process(*SWEEP[:-1], "task.epsilon=0.1,-1,0.3")
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
    assert "model=mlp,seed=0,task.epsilon=0.1,task=fgsm,trainer=smoke" in names


def test_resume_runs_what_failed_or_is_missing_and_nothing_else(trustml: Cli, tmp_path: Path) -> None:
    first = trustml(*SWEEP)
    assert first.returncode == 0, first.stderr
    sweep = only_sweep(tmp_path)
    before = (sweep / "sweep.csv").read_text()
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir() and path.name != ".hydra")
    facts = json.loads((jobs[0] / "run.json").read_text())
    (jobs[0] / "run.json").write_text(json.dumps({**facts, "status": "running"}))  # as if killed
    (jobs[1] / "run.json").unlink()  # as if never begun
    for words in ([*SWEEP, "resume=true"], [f"resume={sweep}"]):
        second = trustml(*words)
        assert second.returncode == 0, second.stderr
        assert second.stdout.count("completed before") == (2 if words[-1] == "resume=true" else 4)
        assert only_sweep(tmp_path) == sweep
        drop = ["seconds"]
        old = pandas.read_csv(sweep / "sweep.csv").drop(columns=drop)
        path = tmp_path / "before.csv"
        path.write_text(before)
        new = pandas.read_csv(path).drop(columns=drop)
        pandas.testing.assert_frame_equal(old, new)


def test_two_of_twelve_jobs_fail_and_are_the_only_ones_that_resuming_runs(trustml: Cli, tmp_path: Path) -> None:
    rows = ["age,sex,hired", *(f"{20 + row},{'fm'[row % 2]},{'no' if row % 3 else 'yes'}" for row in range(60))]
    for number in range(5):
        (tmp_path / f"people_{number}.csv").write_text("\n".join(rows[: 61 - number]))
    files = ",".join([*(f"people_{number}.csv" for number in range(5)), "late.csv"])
    command = ["-m", "task=train", "trainer=smoke", "model=logistic", "dataset=csv", "dataset.label=hired",
               "dataset.positive=yes", "dataset.sensitive=sex", f"dataset.path={files}", "seed=0,1"]  # fmt: skip
    first = trustml(*command)
    assert first.returncode != 0
    assert "10 of 12 jobs completed" in first.stdout
    named = [line for line in first.stderr.splitlines() if line.startswith("trustml: failed:")]
    assert len(named) == 2
    assert all("late.csv" in line for line in named)
    sweep = only_sweep(tmp_path)
    assert pandas.read_csv(sweep / "sweep.csv").status.value_counts().to_dict() == {"completed": 10, "failed": 2}
    assert len(pandas.read_csv(sweep / "summary.csv")) == 5
    assert (sweep / "sweep.png").read_bytes().startswith(b"\x89PNG")

    (tmp_path / "late.csv").write_text("\n".join(rows))
    second = trustml(*command, "resume=true")
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    assert "12 of 12 jobs completed" in second.stdout
    assert second.stdout.count("completed before") == 10
    assert second.stdout.count("test accuracy") == 2
    assert pandas.read_csv(sweep / "sweep.csv").status.tolist() == ["completed"] * 12
    assert len(pandas.read_csv(sweep / "summary.csv")) == 6


def test_a_sweep_that_was_killed_at_random_moments_ends_as_if_it_had_not_been(
    trustml_process: Cli, tmp_path: Path
) -> None:
    moments = random.Random(0)
    sweep = ["task=fgsm", "trainer=smoke", "model=logistic", "seed=0,1", "task.epsilon=0.1,0.3"]
    undisturbed = trustml_process(
        "-m", *sweep, "output_dir=undisturbed", env={"TRUSTML_CACHE_DIR": str(tmp_path / "one")}
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    killed = ["-m", *sweep, "output_dir=killed", "resume=true"]
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(tmp_path / "two")}
    for launcher in ("basic", "joblib", "basic", "joblib", "basic"):
        process = subprocess.Popen(
            [sys.executable, "-m", "trustml_cli", *killed, f"launcher={launcher}"],
            cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(moments.uniform(1, 9))
        process.send_signal(signal.SIGKILL)
        process.wait()
    answer = trustml_process(*killed, env={"TRUSTML_CACHE_DIR": str(tmp_path / "two")})
    assert answer.returncode == 0, answer.stderr
    tables = []
    for folder in ("undisturbed", "killed"):
        (path,) = tmp_path.glob(f"{folder}/multirun/*/sweep.csv")
        tables.append(pandas.read_csv(path).drop(columns=["seconds", "run"]))
    assert tables[0].status.tolist() == ["completed"] * 4
    pandas.testing.assert_frame_equal(tables[0], tables[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [(["task=train", "resume=true"], "add -m"), (["resume=nowhere"], "nowhere is no sweep's directory")],
)
def test_a_resume_that_means_nothing_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resumed_words(words, [])


def test_overrides_may_stand_on_both_sides_of_a_flag(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=train", "-m", "seed=0,1", "--config-dir", ".", "trainer=smoke", "model=logistic")
    assert answer.returncode == 0, answer.stderr
    assert "2 of 2 jobs completed" in answer.stdout
    assert pandas.read_csv(only_sweep(tmp_path) / "sweep.csv").seed.tolist() == [0, 1]


def test_a_job_with_a_seed_that_means_nothing_is_one_line_and_hides_no_other(trustml: Cli) -> None:
    answer = trustml("-m", "task=train", "trainer=smoke", "model=logistic", "seed=${nope},1")
    assert answer.returncode == 2
    assert "1 of 2 jobs completed" in answer.stdout
    assert [line.split(":")[1].strip() for line in answer.stderr.splitlines()] == ["error", "failed"]
    assert all("'nope' not found" in line for line in answer.stderr.splitlines())


@pytest.mark.parametrize("words", [["task=train"], ["seed=0,1", "resume=false"]])
def test_commands_that_resume_nothing_are_left_as_they_are(words: list[str]) -> None:
    assert resumed_words(words, ["-m"]) == [*words, "-m"]


def test_names_of_folders_that_had_to_be_changed_are_told_apart() -> None:
    assert folder_name("seed=0,task.epsilon=0.1") == "seed=0,task.epsilon=0.1"
    assert folder_name("") == "defaults"
    names = {folder_name(text) for text in ("a/b", "a_b", "a b", "a[b", 200 * "a", 201 * "a", f"{150 * 'a'}/b")}
    assert len(names) == 7
    assert all(len(name) <= 150 and "/" not in name for name in names)


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

    monkeypatch.setattr("trustml_cli.sweep.tabulate", full)
    answer = trustml("-m", "task=train", "trainer=smoke", "model=logistic", "seed=0,-1")
    assert answer.returncode == 1
    assert "could not be summed up: OSError: no space left on device" in answer.stderr
    assert "trustml: failed: " in answer.stderr  # the job that failed is named all the same
    assert "1 of 2 jobs completed" in answer.stdout


def test_another_cache_is_no_reason_to_run_a_job_again(trustml: Cli, tmp_path: Path) -> None:
    words = ["-m", "task=train", "trainer=smoke", "model=logistic", "seed=3,4"]
    trustml(*words)
    answer = trustml(*words, "resume=true", env={"TRUSTML_CACHE_DIR": str(tmp_path / "elsewhere")})
    assert answer.stdout.count("completed before") == 2
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
