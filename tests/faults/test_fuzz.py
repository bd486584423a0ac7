"""Fuzzers: whatever a command line, a YAML file or a run directory says, the command ends as docs/runs.md promises.

That is: one line at most, an exit status from its table, within a minute, no traceback and no file where none belongs.
Each test runs a few cases; those marked `faults` run many. TRUSTML_FUZZ_SEED chooses other cases than those of seed 0,
TRUSTML_FUZZ_CASES how many; `pytest -m faults -s tests/faults/test_fuzz.py` says how often each exit status came.
"""

import json
import os
import re
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from signal import SIGKILL
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import trustml_cli
from tests.faults.cases import CONFIG, FACTS, LINES, SMALL, TABLE, TASKS, WHERE, damaged, strangers
from tests.faults.whole import sized
from tests.helpers import command
from tests.processes import forked
from trustml_cli.results.report.page import environment
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.printable import CONTROLS

SEED = int(os.environ.get("TRUSTML_FUZZ_SEED", "0"))
AT_ONCE = 10  # run directories of strangers that lie side by side
SLOWEST = 60  # seconds that any command may take
STATUSES = (0, 1, 2, 3, 130, 143)  # the table in docs/runs.md


def many(count: int) -> int:
    """How many cases a long test runs; what each copy of this process would import is imported before."""
    for module in walk_packages(trustml_cli.__path__, "trustml_cli."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # of an extra
                import_module(module.name)
    return int(os.environ.get("TRUSTML_FUZZ_CASES", sized(count, count // 25)))


@dataclass
class Ended:
    """How a command ended; None for one that was still running after a minute."""

    words: list[str]
    status: int | None
    out: str = ""
    err: str = ""


@dataclass
class Report:
    """What came of the cases: how often each exit status, and what is wrong with those that broke a promise."""

    statuses: Counter[int | None] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, ended: Ended, *wrong: str) -> None:
        self.statuses[ended.status] += 1
        told = ended.err + ended.out
        wrong = (
            *wrong,
            *(["takes more than a minute"] if ended.status is None else []),
            *(["another exit status"] if ended.status not in (*STATUSES, None) else []),
            *(["a traceback"] if "Traceback" in told else []),
            *(["control characters"] if CONTROLS.search(re.sub(r"[\n\t]", "", told)) else []),
            *(["an error without its line"] if ended.status in (1, 2) and "trustml: " not in ended.err else []),
            *(["the name of an exception"] if re.search(r"^trustml: error: \w*(Error|Exception)\b", ended.err) else []),
            *(["several lines"] if ended.err.count("\n") > max(1, 2 * ended.out.count("\njob ") + 1) else []),
        )
        if wrong:
            last = ended.err.strip().splitlines()[-3:]
            self.broken.append(f"{', '.join(wrong)}: {ended.words!r} ended with {ended.status}: {last!r}")

    def judge(self) -> None:
        """Say how often each exit status came; fail where anything broke a promise."""
        sys.stderr.write(f"\nseed {SEED}, {self.statuses.total()} commands, exit statuses {dict(self.statuses)}\n")
        assert not self.broken, f"{len(self.broken)} cases:\n" + "\n".join(self.broken)


def fuzzed(cases: st.SearchStrategy[Any], count: int, run: Callable[[Any], None]) -> None:
    """Have `run` called with so many cases, always the same for a seed."""

    @seed(SEED)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def each(case: Any) -> None:
        run(case)

    each()


@dataclass
class Place:
    """A folder in which commands are run in copies of this process, which are killed if they take too long."""

    folder: Path
    cache: Path

    def run(self, *commands: list[str]) -> list[Ended]:
        """How each of the commands ended, one after the other in one process; those after one that hangs are left."""
        answers = self.folder / "answers"
        answers.mkdir()
        process = forked(lambda: self.work(answers, commands))
        deadline = time.monotonic() + SLOWEST * len(commands)
        while not os.waitpid(process, os.WNOHANG)[0]:
            time.sleep(0.002)
            if time.monotonic() > deadline:
                os.kill(process, SIGKILL)
                os.waitpid(process, 0)
                break
        found = [self.read(answers, number, words) for number, words in enumerate(commands)]
        shutil.rmtree(answers)
        return found

    def read(self, answers: Path, number: int, words: list[str]) -> Ended:
        """What a command has left of itself."""
        out, err = ((answers / f"{number}.{end}") for end in ("out", "err"))
        texts = [path.read_text(errors="backslashreplace") if path.exists() else "" for path in (out, err)]
        status = answers / f"{number}.status"
        return Ended(words, int(status.read_text()) if status.exists() else None, *texts)

    def work(self, answers: Path, commands: tuple[list[str], ...]) -> None:
        """Run the commands, in the copy."""
        for number, words in enumerate(commands):
            for stream, end in ((1, "out"), (2, "err")):
                handle = os.open(answers / f"{number}.{end}", os.O_WRONLY | os.O_CREAT)
                os.dup2(handle, stream)
                os.close(handle)
            sys.stdout, sys.stderr = (
                os.fdopen(os.dup(stream), "w", buffering=1, encoding="utf-8", errors="strict") for stream in (1, 2)
            )
            try:
                status = command(words, self.folder, {"TRUSTML_CACHE_DIR": str(self.cache)})
            except BaseException:
                status = 99
                os.write(2, traceback.format_exc().encode())
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            (answers / f"{number}.status").write_text(str(status))

    def strays(self) -> set[str]:
        """Names of files where none belongs, which are removed."""
        known = {"home", "tmp", "mine", "outputs", "cache", "comparison.html"}
        found = {
            path for place in (".", "home", "tmp") for path in (self.folder / place).iterdir() if path.name not in known
        }
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return {str(path) for path in found}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty folder, without a network, where home and temporary files lie in sight."""
    for name in ("home", "tmp", "mine", "outputs", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("TRUSTML_DATA_DIR", str(tmp_path / "cache" / "data"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://localhost:1")
    environment().get_template("comparison.html")  # what copies of this process need is loaded once
    made = Place(tmp_path, tmp_path / "cache")
    command(["task=fgsm", "--cfg", "job"], tmp_path, {"TRUSTML_CACHE_DIR": str(made.cache)})
    return made


@pytest.fixture
def computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end where computing would begin."""

    def stop(*arguments: object) -> None:
        raise RunFailed("here the computing would begin")

    monkeypatch.setattr("trustml_cli.tasks.context.Context", stop)


def is_safe(words: list[str]) -> bool:
    """Whether a command line asks for no place of its own choice to write to, and for no processes."""
    keys = [re.split(r"[=@]", word.lstrip("+~-"))[0] for word in words]
    return not any(key.rpartition(".")[2].rpartition("_")[2] in WHERE or "launcher" in key for key in keys)


def try_lines(place: Place, lines: st.SearchStrategy[list[str]], count: int) -> None:
    report = Report()

    def run(words: list[str]) -> None:
        if is_safe(words):
            (ended,) = place.run(words)
            strays = place.strays()
            report.add(ended, *([f"leaves {strays}"] if strays else []))

    fuzzed(lines, count, run)
    report.judge()


def try_files(place: Place, count: int) -> None:
    report = Report()

    def run(damage: tuple[str, bytes]) -> None:
        group, content = damage
        (place.folder / "mine" / group).mkdir(exist_ok=True)
        (place.folder / "mine" / group / "damaged.yaml").write_bytes(content)
        task = {"attack": "attack", "detector": "ood", "trigger": "backdoor", "thief": "steal", "explainer": "explain"}
        words = [] if group == "task" else [f"task={task.get(group, group if group in TASKS else 'train')}"]
        where = ["output_dir=outputs", f"cache_dir={place.cache}"]
        (ended,) = place.run(["--config-dir", "mine", *words, f"{group}=damaged", *where])
        strays = place.strays()
        report.add(ended, *([f"leaves {strays} ({content!r})"] if strays else []))

    fuzzed(damaged(), count, run)
    report.judge()


def leave(folder: Path, facts: bytes, table: bytes, config: bytes) -> None:
    """A run directory of these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("run.json", facts), ("metrics.csv", table), ("config.yaml", config)):
        (folder / name).write_bytes(content)


def try_runs(place: Place, count: int) -> None:
    report = Report()
    leave(place.folder / "outputs" / "good", json.dumps(FACTS).encode(), TABLE.encode(), CONFIG.encode())
    names = [f"odd{number}" for number in range(AT_ONCE)]

    def run(directories: list[tuple[bytes, bytes, bytes]]) -> None:
        for name, files in zip(names, directories, strict=True):
            leave(place.folder / "outputs" / name, *files)
        words = ["task.epsilon=[0.1,0.2]", "--sort", "headline", "--csv", "-"]
        listed, sorted_, paged = place.run(["runs"], ["runs", *words], ["report", "outputs"])
        lost = [name for name in ("good", *names) if f"outputs/{name}" not in listed.out]
        report.add(listed, *([f"{lost} are lost ({directories!r})"] if lost else []))
        report.add(sorted_, *([] if sorted_.status == 0 else [f"({directories!r})"]))
        page = place.folder / "comparison.html"
        text = page.read_text() if page.exists() else ""
        there = not CONTROLS.search(re.sub(r"[\n\t]", "", text)) and "outputs/good" in text
        report.add(paged, *([] if there else [f"no page, or one with control characters ({directories!r})"]))
        page.unlink(missing_ok=True)

    fuzzed(st.lists(strangers(), min_size=AT_ONCE, max_size=AT_ONCE), count // AT_ONCE, run)
    report.judge()


@pytest.mark.usefixtures("computes_nothing")
@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "mine", "task=fgsm", "task.foo=1", "task.bar=2"],
        ["task=universal", "others.mlp.normalization=x", "-m"],
        ["task=fgsm", "attack._target_='a\nb'"],
        ["task=train", "model=-1011"],
        ["-sc", "query=bash"],
        ["--resolve"],
    ],
)
def test_command_lines_that_once_ended_otherwise(place: Place, words: list[str]) -> None:
    report = Report()
    report.add(*place.run(words))
    report.judge()


def test_a_command_that_hangs_is_killed_and_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SLOWEST", 0.2)
    monkeypatch.setattr("trustml_cli.results.aggregate.read_runs", lambda folder: time.sleep(100))
    report = Report()
    report.add(*place.run(["runs"]))
    with pytest.raises(AssertionError, match="takes more than a minute"):
        report.judge()


@pytest.mark.faults
@pytest.mark.usefixtures("computes_nothing")
def test_no_command_line_of_many_ends_otherwise(place: Place) -> None:
    try_lines(place, LINES, many(1000))


@pytest.mark.faults
def test_no_small_run_of_many_ends_otherwise(place: Place) -> None:
    try_lines(place, SMALL, many(150))


@pytest.mark.faults
@pytest.mark.usefixtures("computes_nothing")
def test_no_yaml_file_of_many_ends_otherwise(place: Place) -> None:
    try_files(place, many(500))


@pytest.mark.faults
def test_no_run_directory_of_many_ends_otherwise(place: Place) -> None:
    try_runs(place, many(5000))


@pytest.mark.usefixtures("computes_nothing")
@pytest.mark.parametrize("content", ["defaults: {a: 1}\n", "defaults: 5\n", "defaults: [[1]]\n", "hydra: 5\n", "- a\n"])
def test_yaml_files_that_once_were_told_by_the_name_of_an_exception(place: Place, content: str) -> None:
    (place.folder / "mine" / "attack").mkdir()
    (place.folder / "mine" / "attack" / "damaged.yaml").write_text(content)
    report = Report()
    report.add(*place.run(["--config-dir", "mine", "task=attack", "attack=damaged"]))
    report.judge()
