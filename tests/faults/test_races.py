"""Processes that start at the same moment: a model is trained once, and no directory is shared."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas
import pytest

from tests.faults.whole import TIMES, assert_whole, leftovers, sized
from tests.processes import started

pytestmark = pytest.mark.faults

# it trains for a while and does little else
TRAIN = ["task=fgsm", "trainer=smoke", "trainer.epochs=10", "model=mlp", "task.epsilon=0", "task.check_images=0"]

# the imports take seconds, and would spread the processes: they come first, then the process becomes many
AT_ONCE = """
import json, os, sys
import pandas, sklearn.datasets, torch.fx.experimental.symbolic_shapes
import trustml_cli.results.report.page, trustml_cli.cli.main, trustml_cli.tasks.attack
commands = json.loads(sys.argv[1])
ready, go = os.pipe()
processes = []
for number, words in enumerate(commands):
    process = os.fork()
    if process == 0:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        os.close(go)
        os.read(ready, 1)  # ends for all of them when the last writer closes
        sys.argv = ["trustml", *words]
        trustml_cli.cli.main.main()
    processes.append(process)
os.close(go)
print(*(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes))
"""


def at_once(commands: list[list[str]], folder: Path, cache: Path) -> list[int]:
    """A process for each command, all from the same moment on; their exit statuses."""
    folder.mkdir()
    answer = subprocess.run(
        [sys.executable, "-c", AT_ONCE, json.dumps(commands)],
        cwd=folder, env={**os.environ, "TRUSTML_CACHE_DIR": str(cache)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return list(map(int, answer.stdout.split()))


def assert_one_training(folder: Path, cache: Path, count: int) -> None:
    """The runs below `folder` are so many, each has a directory of its own, and they agree though one trained."""
    logs = [path.read_text() for path in folder.rglob("trustml.log")]
    assert len(logs) == count
    assert sum("training model" in log for log in logs) == 1
    assert all(log.count("results are in") == 1 for log in logs)
    tables = [pandas.read_csv(path).drop(columns=TIMES, errors="ignore") for path in folder.rglob("metrics.csv")]
    assert len(tables) == count
    assert len({table.to_csv() for table in tables}) == 1
    assert len({path.read_bytes() for path in folder.rglob("history.csv")}) == 1, "of the one training"
    assert len([path for path in cache.glob("models/*") if path.is_dir()]) == 1
    assert_whole(folder, cache)
    assert leftovers(folder) == leftovers(cache) == []


def test_eight_who_ask_at_once_train_once_and_agree_and_one_of_four_has_a_directory(tmp_path: Path) -> None:
    """The last four are told to use the same directory."""
    many = sized(8, 3)
    commands = [TRAIN] * many + [[*TRAIN, "hydra.run.dir=outputs/fgsm/taken"]] * 4
    statuses = at_once(commands, tmp_path / "runs", tmp_path / "cache")
    assert statuses[:many] == [0] * many
    assert Counter(statuses[many:]) == {0: 1, 2: 3}
    errors = [(tmp_path / "runs" / f"{number}.err").read_text() for number in range(many + 4)]
    assert errors[:many] == [""] * many
    assert sum("taken holds a run already; choose another" in error for error in errors) == 3
    assert json.loads((tmp_path / "runs/outputs/fgsm/taken/run.json").read_text())["status"] == "completed"
    assert_one_training(tmp_path / "runs", tmp_path / "cache", many + 1)


def test_commands_that_are_started_at_once(tmp_path: Path) -> None:
    many = sized(8, 2)
    (tmp_path / "runs").mkdir()
    processes = [started(TRAIN, tmp_path / "runs", tmp_path / "cache") for _ in range(many)]
    answers = [(process.communicate()[1], process.returncode) for process in processes]
    assert answers == [("", 0)] * many
    assert_one_training(tmp_path / "runs", tmp_path / "cache", many)


def test_many_from_the_same_moment_on_share_no_directory(tmp_path: Path) -> None:
    many = sized(16, 2)
    assert at_once([TRAIN] * many, tmp_path / "runs", tmp_path / "cache") == [0] * many
    assert_one_training(tmp_path / "runs", tmp_path / "cache", many)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("outputs/fgsm/*/run.json")]
    print(f"started at {Counter(run['started'] for run in runs).most_common(3)}")  # noqa: T201
