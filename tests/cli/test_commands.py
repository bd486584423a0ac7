"""The commands beside running, through the real command line."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.configs import choices
from tests.helpers import Cli, leave_run
from trustml_cli.cli.commands import COMMANDS, answer

METRICS = "epsilon,robust_accuracy\n0.1,0.5\n"


def test_without_a_word_the_help_is_printed(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml()
    assert (answer.returncode, answer.stdout) == (0, trustml("--help").stdout)
    assert not list(tmp_path.iterdir())


def test_the_configs_of_a_multirun_are_printed_job_by_job(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("-m", "task=fgsm,attack", "model=glob(mnist_c*)", "eps=range(1/4,1/3,1/8)", "--cfg", "job")
    assert (answer.returncode, answer.stderr) == (0, "")
    first, second = yaml.safe_load_all(answer.stdout)
    assert "# job 2 of 2: task=attack model=mnist_cnn task.epsilon=0.25" in answer.stdout
    assert first["task"]["epsilon"] == second["task"]["epsilon"] == 0.25
    assert first["attack"]["_target_"] != second["attack"]["_target_"]
    study = trustml("study=tour", "--cfg", "job")
    assert yaml.safe_load(study.stdout)["study"]["items"]
    assert not list(tmp_path.iterdir())


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
        (["report"], "outputs: there is no such folder; see trustml runs for those with runs"),
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
    for name, robust in (("a", 0.25), ("b", 0.75)):
        table = f"epsilon,robust_accuracy\n0.1,{robust}\n"
        leave_run(tmp_path / "outputs" / name, table, f"trainer: {{lr: {robust / 100}}}\nseed: 0\n",
                  conditions=["epsilon"], headline="robust_accuracy")  # fmt: skip
    answer = trustml("report", "outputs/a", "outputs/b", "--to", "both.html")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "both.html\n", "")
    page = (tmp_path / "both.html").read_text()
    assert re.findall(r"<code>([\w.]+)</code></th><td>([\d.]+)</td><td>([\d.]+)</td>", page) == [
        ("trainer.lr", "0.0025", "0.0075")
    ]
    assert trustml("report").stdout == "comparison.html\n", "everything so far"
    assert trustml("report", "outputs").stdout == "comparison.html, in place of an earlier file of that name\n"
    assert (tmp_path / "comparison.html").read_text() == page
    assert trustml("report", "outputs/b").returncode == 0
    assert "0.0025" not in (tmp_path / "comparison.html").read_text()


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


def test_the_commands_answer_without_importing_torch(tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs" / "a", METRICS, "seed: 0\n", conditions=["epsilon"], headline="robust_accuracy")
    code = (
        "import sys\n"
        "from trustml_cli.cli.main import main\n"
        "for words in (['--help'], ['--version'], ['show'], ['show', 'task=fgsm'], ['runs', 'task=fgsm']):\n"
        "    sys.argv[1:] = words\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, words\n"
        "    assert not {'torch', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules), words\n"
        "sys.argv[1:] = ['report', 'outputs']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "robust_accuracy" in answer.stdout


def watched(words: list[str], columns: int, **env: str) -> str:
    """What a command writes to a terminal of this width."""
    master, slave = pty.openpty()
    parts = []

    def follow() -> None:
        with suppress(OSError):  # how Linux says that the other side is closed
            while part := os.read(master, 65536):
                parts.append(part)

    reader = Thread(target=follow)
    reader.start()
    with os.fdopen(slave, "w") as terminal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        for name, value in {"COLUMNS": str(columns), **env}.items():
            patch.setenv(name, value)
        assert answer(words) is None
    reader.join()
    os.close(master)
    return b"".join(parts).decode()


def test_a_terminal_is_kept_to_its_width(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "train" / "2026-11-21_10-39-13_790cd506"
    leave_run(folder, task="train", status="failed", error="too long " * 20)
    (line,) = (line for line in watched(["runs"], 72).splitlines() if "train" in line)
    assert "\x1b[31mfailed\x1b[0m" in line
    assert len(line) - len("\x1b[31m\x1b[0m") <= 72
    assert line.endswith("cd506")
    assert "\x1b" not in watched(["runs"], 72, NO_COLOR="1")
    lines = watched(["show", "task"], 60, NO_COLOR="1").splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) > len(choices("task"))  # descriptions go on below themselves


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "trustml_cli", "show", "experiment"]
    answer = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (answer.returncode, answer.stderr) == (0, "")
