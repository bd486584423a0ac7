"""Processes that are killed at any moment: what lies on disk is whole or absent, and the next run ends as usual.

The kill is SIGKILL to the whole group of processes, which no code of ours hears of.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

import pandas
import pytest

from tests.faults.whole import assert_whole, leftovers, metrics_below, sized
from tests.helpers import Cli, facts, runs
from tests.processes import kill_group, started, wait_until
from trustml_cli.results.aggregate import read_runs

MINE = """
from pathlib import Path
from time import sleep
from torch import nn

class Waits(nn.Flatten):
    def forward(self, x):
        if self.training and len(x) > 3 and Path("kill me").exists():  # not in the probe before training
            Path("at it").touch()
            sleep(600)
        return super().forward(x)

def network(num_classes):
    return nn.Sequential(Waits(), nn.LazyLinear(num_classes))
"""


@pytest.mark.faults
def test_a_run_that_is_killed_while_it_trains_blocks_nobody_and_leaves_nothing_half(
    trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # a run in this process adds to it
    (tmp_path / "waiting_network.py").write_text(MINE)
    (tmp_path / "kill me").touch()
    words = ["task=train", "trainer=smoke", "model=custom", "model.factory=waiting_network:network"]
    process = started(words, tmp_path, tmp_path / "cache")
    try:
        wait_until(lambda: process.poll() is not None or (tmp_path / "at it").exists())
        (killed,) = read_runs(tmp_path / "outputs")
        assert killed.status == "running"
    finally:
        kill_group(process.pid)
        error = process.communicate()[1]
    assert (process.returncode, error) == (-9, "")
    assert killed.status == "killed"
    assert_whole(tmp_path / "outputs", tmp_path / "cache")
    assert [path.parent.name for path in leftovers(tmp_path / "cache")] == ["models"], "it was at its model"
    (tmp_path / "kill me").unlink()
    for cache in ("cache", "another"):
        answer = trustml(*words, f"output_dir={cache}/out", env={"TRUSTML_CACHE_DIR": str(tmp_path / cache)})
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "waiting for another" not in answer.stdout
    sys.modules.pop("waiting_network", None)
    assert leftovers(tmp_path / "cache") == []
    pandas.testing.assert_frame_equal(metrics_below(tmp_path / "cache"), metrics_below(tmp_path / "another"))


# At any moment

WORK = {
    "train": ["task=train", "trainer=smoke", "model=mlp", "trainer.epochs=20"],
    "attack": ["task=attack", "attack=pgd", "attack.steps=20", "trainer=smoke", "model=mlp", "task.epsilon=[0.1,0.2]"],
    "sweep": ["-m", "resume=true", "task=fgsm", "trainer=smoke", "model=mlp", "seed=0,1", "task.epsilon=0.1,0.2",
              "task.check_images=0"],
}  # fmt: skip
LAUNCHERS = {"sweep": ["launcher=joblib", "launcher=basic"]}


def files_in(*folders: Path) -> set[str]:
    """Files below folders that are whole: partial ones and Hydra's own, which are hidden, aside."""
    found = set()
    for folder in folders:
        for place, inside, files in os.walk(folder):
            inside[:] = [name for name in inside if not name.startswith(".")]
            found |= {f"{place}/{name}" for name in files if not name.startswith(".")}
    return found


def watched(words: Sequence[str], cwd: Path, cache: Path, last: float = inf) -> tuple[int, bool, str]:
    """Run the command, and kill it when so many files have come to be; how many had, whether it was killed, errors."""
    before = files_in(cwd, cache)
    process = started(words, cwd, cache)
    try:
        wait_until(lambda: len(files_in(cwd, cache) - before) >= last or process.poll() is not None)
        killed = process.poll() is None
    finally:
        kill_group(process.pid)
        error = process.communicate()[1]
    assert killed or process.returncode == 0, error
    return len(files_in(cwd, cache) - before), killed, error


@pytest.mark.faults
@pytest.mark.parametrize("work", sized(list(WORK), ["attack", "sweep"]))
def test_kills_between_any_two_files(tmp_path: Path, work: str) -> None:
    """Kill a command at moments from its first file to its last, on one cache, then let it end."""
    times = sized(10, 2)
    words, launchers = WORK[work], LAUNCHERS.get(work, [])
    table = "sweep.csv" if work == "sweep" else "metrics.csv"
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    files, _, error = watched([*words, *launchers[:1]], tmp_path / "undisturbed", tmp_path / "cache of its own")
    assert error == ""
    usual = metrics_below(tmp_path / "undisturbed", table)
    folder, cache = tmp_path / "killed", tmp_path / "cache"
    outcomes: list[tuple[int, str, int]] = []
    while (number := len(outcomes)) < times:
        last = (number + 1) * files // (times + 1)  # one in each part of the run, so that all parts are met
        before = set(folder.glob("outputs/*/*"))
        launcher = launchers[number % len(launchers) :][:1] if launchers else []
        _, killed, _ = watched([*words, *launcher], folder, cache, last)
        assert_whole(folder, cache)
        if not killed:  # there was less to do, after the kills before; from here on there is all of it
            for done in (cache, folder / "outputs"):
                shutil.rmtree(done)
            continue
        left = [run.status for run in read_runs(folder) if run.folder not in before]
        assert "running" not in left, "nobody is at work"
        outcomes.append((last, ",".join(left) or "nothing yet", len(leftovers(tmp_path))))
    print(f"{work}: {files} files undisturbed; (killed after, runs, partial files): {outcomes}")  # noqa: T201
    _, _, error = watched(words, folder, cache)
    assert error == ""
    assert_whole(folder, cache)
    assert leftovers(cache) == [], "whoever makes it next clears up"
    if work == "sweep":
        pandas.testing.assert_frame_equal(metrics_below(folder, table), usual)
    completed = [run for run in runs(folder) if facts(run)["status"] == "completed"]
    if work != "sweep":
        for run in completed:  # a kill may come after the last word
            pandas.testing.assert_frame_equal(metrics_below(run), usual)
    assert completed
