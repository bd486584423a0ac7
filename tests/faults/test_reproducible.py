"""The same seed gives the same metrics: again, from an empty cache, and in one process or four."""

import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from tests.configs import choices
from tests.faults.whole import sized
from tests.helpers import TIMES, Cli


def rows(table: Path) -> pandas.DataFrame:
    """The text of a table, but for times, in an order that does not depend on who was first."""
    found = pandas.read_csv(table, dtype=str)
    found = found.drop(columns=[name for name in [*TIMES, "run"] if name in found])
    return found.sort_values(list(found.columns), ignore_index=True)


def run(task: str, place: Path) -> pandas.DataFrame:
    """The metrics of a task in a process and with a cache of its own."""
    place.mkdir()
    subprocess.run(
        [sys.executable, "-m", "trustml_cli", f"task={task}", "trainer=smoke", "seed=3"],
        cwd=place, env={**os.environ, "TRUSTML_CACHE_DIR": str(place / "cache")}, check=True, capture_output=True,
    )  # fmt: skip
    (table,) = place.glob("outputs/*/*/metrics.csv")
    return rows(table)


@pytest.mark.faults
@pytest.mark.parametrize("task", sized(choices("task"), ["backdoor"]))
def test_every_task_measures_the_same_from_an_empty_cache(task: str, tmp_path: Path) -> None:
    first, again = (run(task, tmp_path / name) for name in ("first", "again"))
    pandas.testing.assert_frame_equal(first, again)


@pytest.mark.faults
def test_one_process_and_many_measure_the_same(trustml: Cli, tmp_path: Path) -> None:
    jobs = sized(4, 2)
    words = ["-m", "task=fgsm", "trainer=smoke", "model=logistic", "task.epsilon=0.1"]
    words += [f"seed={','.join(map(str, range(jobs)))}"]
    tables = []
    for launcher in (["launcher=basic"], ["launcher=joblib", f"hydra.launcher.n_jobs={jobs}"]):
        place = tmp_path / launcher[0].replace("=", " ")
        done = trustml(*words, *launcher, f"hydra.sweep.dir='{place}'", f"cache_dir='{place}/cache'")
        assert done.returncode == 0, done.stderr
        tables.append(rows(place / "sweep.csv"))
    pandas.testing.assert_frame_equal(*tables)
    assert len(tables[0]) == jobs
    assert tables[0]["mean_confidence"].nunique() == jobs  # seeds are told apart
