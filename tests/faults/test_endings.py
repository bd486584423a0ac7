"""Commands that are told to end (SLURM, Kubernetes, `timeout`), and commands whose words nobody hears."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from tests.faults.whole import assert_whole, leftovers
from tests.helpers import facts, runs
from tests.processes import gone, group, kill_group, started, wait_until

ENDLESS = ["task=train", "trainer.epochs=100000", "model=logistic"]
FULL = pytest.mark.faults


@FULL
@pytest.mark.parametrize(
    ("words", "training"),
    [
        ([], 1),
        (["-m", "seed=0,1"], 1),
        (["-m", "seed=0,1,2", "launcher=joblib"], 2),
    ],
    ids=["run", "sweep", "joblib"],
)
def test_a_command_that_is_told_to_end_finishes_its_records_and_leaves_nothing_half(
    words: list[str], training: int, tmp_path: Path
) -> None:
    process = started([*ENDLESS, *words], tmp_path, tmp_path / "cache")
    try:
        wait_until(lambda: process.poll() is not None or len(list(tmp_path.rglob("history.csv"))) == training)
        process.send_signal(signal.SIGTERM)
        error = process.communicate()[1]
        wait_until(lambda: all(map(gone, group(process.pid))))
    finally:
        kill_group(process.pid)
    assert process.returncode == 143
    assert "Traceback" not in error
    ended = [facts(run) for run in runs(tmp_path)]
    assert [(run["status"], run["exit_code"], run["error"]) for run in ended] == [
        ("failed", 143, "terminated (SIGTERM)")
    ] * training
    assert_whole(tmp_path / "outputs", tmp_path / "cache")
    assert leftovers(tmp_path) == []
    if words:
        (sweep,) = tmp_path.glob("outputs/multirun/*")
        assert (sweep / "index.html").exists()
        assert pandas.read_csv(sweep / "sweep.csv").status.tolist() == ["failed"] * training
        assert f"trustml: {len(words[1].split(',')) - training} of {len(words[1].split(','))} jobs never began" in error


@FULL
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
@pytest.mark.parametrize("streams", ["| true", ">/dev/full", ">/dev/full 2>/dev/full", ">&- 2>&-"])
def test_a_sweep_that_nobody_hears_ends_as_any_other(launcher: str, streams: str, tmp_path: Path) -> None:
    words = ["-m", f"launcher={launcher}", "task=train", "trainer=smoke", "model=logistic", "trainer.lr=0.01,-1"]
    script = f'"$0" -m trustml_cli "$@" {streams.replace("|", "; echo $? >status; } |", 1)}'
    script = "{ " + script if "|" in streams else f"{script}; echo $? >status"
    answer = subprocess.run(
        ["sh", "-c", script, sys.executable, *words],
        cwd=tmp_path, env={**os.environ, "TRUSTML_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (tmp_path / "status").read_text() == "2\n"
    (sweep,) = tmp_path.glob("outputs/multirun/*")
    assert (sweep / "index.html").exists()
    assert pandas.read_csv(sweep / "sweep.csv").status.tolist() == ["completed", "failed"]
    assert "Traceback" not in answer.stderr
    if "2>" not in streams:
        assert "trainer.lr: must be above 0" in answer.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_input_error_and_lost_output_keep_their_status(tmp_path: Path) -> None:
    for words, streams, status in (("trainr=smoke", ">/dev/full 2>/dev/full", 2), ("--help", ">/dev/full", 1)):
        command = ["sh", "-c", f'"$0" -m trustml_cli {words} {streams}', sys.executable]
        answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert answer.returncode == status
        assert answer.stderr == ("" if status == 2 else "trustml: error: standard output: No space left on device\n")
