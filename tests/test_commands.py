"""The commands beside running, through the real command line."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.configs import choices
from tests.helpers import Cli
from trustml_cli.commands import COMMANDS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "atack"], "atack: no such group; did you mean 'attack'?"),
        (["show", "task=fgms"], "task=fgms: no such task; did you mean 'fgsm'?"),
        (["show", "task", "fgsm", "more"], "unrecognized arguments: more; see trustml show --help"),
        (["show", "--config-dir", "nowhere"], "--config-dir: there is no folder nowhere"),
        (["runs", "fgsm"], "fgsm: write KEY=VALUE; see trustml runs --help"),
        (["runs", "--output-dir", "nowhere"], "--output-dir: there is no folder nowhere"),
        (["runs", "--limit", "0"], "--limit: must be at least 1, got 0"),
        (["runs", "--limit", "x"], "argument --limit: invalid int value: 'x'; see trustml runs --help"),
        (["report"], "the following arguments are required: DIR; see trustml report --help"),
        (["report", "nowhere"], "nowhere: there is no such folder; see trustml runs for those with runs"),
        (["report", "."], ".: holds no run; see trustml runs for folders that do"),
        (["rnus"], None),  # Hydra's to answer
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], expected: str | None, trustml: Cli) -> None:
    answer = trustml(*words)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr == f"trustml: error: {expected}\n" if expected else answer.stderr.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, trustml: Cli) -> None:
    answer = trustml(name, "--help")
    assert answer.returncode == 0
    assert COMMANDS[name].help in answer.stdout
    assert f"  trustml {name} " in answer.stdout  # an example
    assert f"trustml {name}" in trustml("--help").stdout


def test_no_runs_yet_is_no_error(trustml: Cli) -> None:
    answer = trustml("runs")
    assert answer.returncode == 0
    assert answer.stdout == "no runs below outputs yet; begin with: trustml task=fgsm\n"


def test_runs_are_put_side_by_side(trustml: Cli, tmp_path: Path) -> None:
    for lr in ("0.001", "0.002"):
        trustml("task=train", "model=logistic", "trainer=smoke", f"trainer.lr={lr}")
    runs = [str(run.relative_to(tmp_path)) for run in sorted((tmp_path / "outputs" / "train").iterdir())]
    answer = trustml("report", *runs, "--to", "both.html")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "both.html\n", "")
    page = (tmp_path / "both.html").read_text()
    assert "trainer.lr" in page
    assert trustml("report", "outputs").stdout == "comparison.html\n"


def test_files_among_the_folders_are_passed_over(trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "run.json").write_text('{"status": "completed", "command": ["trustml"]}')
    (tmp_path / "sweep.csv").touch()
    assert trustml("report", "job", "sweep.csv").returncode == 0
    assert "sweep.csv: there is no such folder" in trustml("report", "sweep.csv").stderr


def test_show_is_plain_and_whole_where_nobody_watches(trustml: Cli) -> None:
    lines = trustml("show", "task").stdout.splitlines()
    assert [line.split()[0] for line in lines] == choices("task")
    first, *rest = trustml("show", "trainer=smoke").stdout.splitlines()
    assert first.startswith("trainer=smoke: seconds on two CPU cores")
    assert "trainer.epochs               2" in rest
    assert trustml("show", "trainer", "smoke").stdout.splitlines() == [first, *rest]


@pytest.mark.parametrize("words", [["show"], ["show", "task=fgsm"], ["runs"]])
def test_answers_come_quickly_and_without_torch(words: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['trustml', *{words!r}]\n"
        "from trustml_cli.run import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
        taken.append(time.perf_counter() - begin)
    assert min(taken) < 1.5  # 0.3 s alone; machines that run tests are busy


def watched(words: list[str], folder: Path, columns: int, **env: str) -> str:
    """What the command writes to a terminal of this width."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), **env}
    command = [sys.executable, "-m", "trustml_cli", *words]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    parts = []
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(master)
    assert process.wait() == 0
    return b"".join(parts).decode()


def test_a_terminal_is_kept_to_its_width(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "train" / "2026-11-21_10-39-13_790cd506"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"task": "train", "status": "failed", "error": "%s"}' % ("too long " * 20))
    (line,) = (line for line in watched(["runs"], tmp_path, 72).splitlines() if "train" in line)
    assert "\x1b[31mfailed\x1b[0m" in line
    assert len(line) - len("\x1b[31m\x1b[0m") <= 72
    assert line.endswith("cd506")
    assert "\x1b" not in watched(["runs"], tmp_path, 72, NO_COLOR="1")
    lines = watched(["show", "task"], tmp_path, 60, NO_COLOR="1").splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) > len(choices("task"))  # descriptions go on below themselves


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "trustml_cli", "show", "experiment"]
    answer = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (answer.returncode, answer.stderr) == (0, "")
