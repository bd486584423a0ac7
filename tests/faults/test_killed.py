"""Processes that are killed at any moment: what lies on disk is whole or absent, and the next run ends as usual.

The kill is SIGKILL to the whole group of processes, which no code of ours hears of.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas
import pytest

from tests.faults.whole import assert_whole, leftovers, metrics_below
from trustml_cli.files import make_once
from trustml_cli.summary import read_runs

WORK = {
    "train": ["task=train", "trainer=smoke", "model=mlp", "trainer.epochs=20"],
    "attack": ["task=attack", "attack=pgd", "attack.steps=20", "trainer=smoke", "model=mlp", "task.epsilon=[0.1,0.2]"],
    "sweep": ["-m", "launcher=joblib", "task=fgsm", "trainer=smoke", "model=mlp", "seed=0,1", "task.epsilon=0.1,0.2",
              "task.check_images=0", "resume=true"],
}  # fmt: skip


def started(words: Sequence[str], cwd: Path, cache: Path) -> subprocess.Popen[str]:
    """The command in a group of processes of its own."""
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "trustml_cli", *words],
        cwd=cwd, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def killed_after(seconds: float, words: Sequence[str], cwd: Path, cache: Path) -> bool:
    """Start the command and kill it; whether it was still at work."""
    process = started(words, cwd, cache)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        at_work = process.poll() is None
        kill_group(process.pid)
        process.communicate()
    return at_work


def kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
    while True:  # the workers of a sweep are no children of ours
        try:
            os.killpg(leader, 0)
        except (ProcessLookupError, PermissionError):
            return
        if not any(state(process) not in "ZX" for process in group(leader)):
            return
        time.sleep(0.01)


def group(leader: int) -> list[int]:
    """The processes in the group, where there is a /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader:
            found.append(int(path.parent.name))
    return found


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def undisturbed(words: Sequence[str], folder: Path, cache: Path) -> float:
    """Run the command to its end; the seconds that it took."""
    folder.mkdir()
    start = time.perf_counter()
    process = started(words, folder, cache)
    _, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    return time.perf_counter() - start


def killed_again_and_again(work: str, tmp_path: Path, times: int, seed: int, *more: str) -> None:
    """Kill a command at so many moments from its start to its end, on one cache, then let it end."""
    words, moments = [*WORK[work], *more], random.Random(seed)
    table = "sweep.csv" if work == "sweep" else "metrics.csv"
    seconds = undisturbed(words, tmp_path / "undisturbed", tmp_path / "cache of its own")
    usual = metrics_below(tmp_path / "undisturbed", table)
    folder, cache = tmp_path / "killed", tmp_path / "cache"
    folder.mkdir()
    outcomes = []
    while (number := len(outcomes)) < times:
        # one in each part of the run, so that all parts are met
        moment = (number + moments.random()) / times * seconds
        before = set(folder.glob("outputs/*/*"))
        at_work = killed_after(moment, words, folder, cache)
        assert_whole(folder, cache)
        if not at_work:  # it was faster than before
            seconds = moment
            for done in (cache, folder / "outputs"):
                shutil.rmtree(done)
            continue
        left = [run.status for run in read_runs(folder) if run.folder not in before]
        assert "running" not in left, "nobody is at work"
        outcomes.append((round(moment, 2), ",".join(left) or "nothing yet", len(leftovers(tmp_path))))
    print(f"{work}: {seconds:.1f} s undisturbed; (killed after, runs, partial files): {outcomes}")  # noqa: T201
    start = time.perf_counter()
    last = started(words, folder, cache)
    _, error = last.communicate()
    assert last.returncode == 0, error
    assert error == ""
    print(f"afterwards {time.perf_counter() - start:.1f} s")  # noqa: T201
    assert_whole(folder, cache)
    assert leftovers(cache) == [], "whoever makes it next clears up"
    completed = [run for run in read_runs(folder) if run.status == "completed"]
    if work == "sweep":
        pandas.testing.assert_frame_equal(metrics_below(folder, table), usual)
    else:
        for run in completed:  # a kill may come after the last word
            pandas.testing.assert_frame_equal(metrics_below(run.folder), usual)
    assert completed


def test_a_run_that_is_killed_at_random_moments_leaves_nothing_half(tmp_path: Path) -> None:
    killed_again_and_again("attack", tmp_path, 3, 0, "task.check_images=0", "task.epsilon=0.1", "attack.steps=5")


@pytest.mark.faults
@pytest.mark.parametrize("work", WORK)
def test_ten_kills_at_random_moments(tmp_path: Path, work: str) -> None:
    killed_again_and_again(work, tmp_path, 10, 1)


HOLDING = """
import sys, time
from pathlib import Path
from trustml_cli.files import make_once
def make(folder):
    (folder / "half").write_text("ha")
    print("at it", flush=True)
    time.sleep(600)
make_once(Path(sys.argv[1]), make)
"""


def test_the_lock_of_who_was_killed_blocks_nobody_and_his_remains_are_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "model [1]"  # brackets mean something to glob
    maker = subprocess.Popen([sys.executable, "-c", HOLDING, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "at it\n"
    finally:
        maker.kill()
        maker.communicate()
    assert len(leftovers(tmp_path)) == 1
    (tmp_path / ".model [1]").mkdir()  # not ours
    start = time.perf_counter()
    make_once(folder, lambda partial: (partial / "whole").write_text("whole"))
    assert time.perf_counter() - start < 1
    assert {path.name for path in folder.iterdir()} == {"whole", "checksums.json"}
    assert leftovers(tmp_path) == []
    assert (tmp_path / ".model [1]").is_dir()
