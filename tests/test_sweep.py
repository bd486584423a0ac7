"""Multiruns through the real command line: failures, resuming, and what is added up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from trustml_cli.errors import InputError
from trustml_cli.sweep import resumed_words

Cli = Callable[..., subprocess.CompletedProcess[str]]
SWEEP = ["-m", "task=fgsm", "trainer=smoke", "model=mlp", "seed=0,1", "task.epsilon=0.1,0.3"]


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
        old = pandas.read_csv(sweep / "sweep.csv").drop(columns=drop).sort_values("run", ignore_index=True)
        path = tmp_path / "before.csv"
        path.write_text(before)
        new = pandas.read_csv(path).drop(columns=drop).sort_values("run", ignore_index=True)
        pandas.testing.assert_frame_equal(old, new)


def test_a_sweep_that_was_killed_ends_as_if_it_had_not_been(trustml: Cli, tmp_path: Path, cache_dir: Path) -> None:
    command = [sys.executable, "-m", "trustml_cli", *SWEEP]
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(cache_dir)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("metrics.csv"))) < 1:  # in the middle: one job has measured something
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    answer = trustml(*SWEEP, "resume=true")
    assert answer.returncode == 0, answer.stderr
    table = pandas.read_csv(only_sweep(tmp_path) / "sweep.csv")
    assert table.status.tolist() == ["completed"] * 4
    assert sorted(zip(table.seed, table.epsilon, strict=True)) == [(0, 0.1), (0, 0.3), (1, 0.1), (1, 0.3)]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["task=train", "resume=true"], "add -m"), (["resume=nowhere"], "nowhere is no sweep's directory")],
)
def test_a_resume_that_means_nothing_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resumed_words(words)


@pytest.mark.parametrize("words", [["task=train"], ["-m", "seed=0,1", "resume=false"]])
def test_commands_that_resume_nothing_are_left_as_they_are(words: list[str]) -> None:
    assert resumed_words(words) == words


def test_resume_without_an_earlier_sweep_begins_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resumed_words(["-m", "seed=0,1", "resume=true"]) == ["-m", "seed=0,1", "resume=true"]
