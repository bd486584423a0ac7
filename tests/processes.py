"""Processes that begin at once, wait for one another or are killed, and states that are waited for."""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

HANGS = 300
"""Seconds after which what is waited for will not come: a guard, no measure of anything."""


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for a state that others bring about."""
    deadline = time.monotonic() + HANGS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited for {HANGS} s")
        time.sleep(0.005)


def at_once(*works: Callable[[], object]) -> list[int]:
    """A copy of this process for each of `works`; their exit statuses, 0 where nothing was raised."""
    return [ended(copy) for copy in list(map(forked, works))]


def forked(work: Callable[[], object]) -> int:
    """A copy of this process that does `work`, which may not use a GPU; its number."""
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the copy lacks this one's threads, and needs none
        number = os.fork()
    if number:
        return number
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def ended(process: int) -> int:
    """The exit status of a child, negative for a signal."""
    status: list[int] = []

    def over() -> bool:
        number, ending = os.waitpid(process, os.WNOHANG)
        if number:
            status.append(os.waitstatus_to_exitcode(ending))
        return bool(number)

    try:
        wait_until(over)
    except TimeoutError:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        raise
    return status[0]


class OneMakes:
    """Of so many processes that want the same thing made, the one that makes it waits for all others to want it.

    Each calls `asks` before it asks, and `makes` where it makes: that returns as soon as every other either says in
    the log that it waits, or makes the same thing too, which a test then sees in `made`.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        folder.mkdir()

    def asks(self) -> None:
        """Have what this process logs about waiting be seen by the others."""
        logger = logging.getLogger("trustml_cli.system.files")
        logger.setLevel(logging.INFO)
        logger.addHandler(Waiting(self))

    def note(self, what: str) -> None:
        (self.folder / f"{what}_{os.getpid()}_{time.monotonic_ns()}").touch()

    def seen(self, what: str) -> int:
        return len(list(self.folder.glob(f"{what}_*")))

    def makes(self) -> None:
        self.note("making")
        wait_until(lambda: self.seen("making") + self.seen("waiting") == self.count)

    @property
    def made(self) -> int:
        """How often it was made."""
        return self.seen("making")


class Waiting(logging.Handler):
    """Notes who says that it waits for another."""

    def __init__(self, others: OneMakes) -> None:
        super().__init__()
        self.others = others

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("waiting for another process"):
            self.others.note("waiting")


def started(words: Sequence[str], cwd: Path, cache: Path) -> subprocess.Popen[str]:
    """The command line in a group of processes of its own."""
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-m", "trustml_cli", *words],
        cwd=cwd, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_group(leader: int) -> None:
    """SIGKILL to a process and all that it started, of which no code of ours hears; returns when they are gone."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_until(lambda: all(map(gone, group(leader))))


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


def gone(process: int) -> bool:
    """Whether it has ended, be it that nobody has asked for its exit status yet."""
    return state(process) in "ZX"


def state(process: int) -> str:
    """The letter that /proc has for what a process does; X where it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def noted(folder: Path, number: int, after: Sequence[int] = (), then: str = "") -> tuple[int, str | None]:
    """A job that says that it has begun, and that waits until those in `after` have, too.

    Then it says that it has ended; or it dies with its process, outlives that of job 0, or takes a minute. Returns its
    number, and how many threads its process was given.
    """
    (folder / f".{number}").write_text(str(os.getpid()))
    (folder / f".{number}").rename(folder / f"begun_{number}")
    wait_until(lambda: all((folder / f"begun_{other}").exists() for other in after))
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "outlive":
        wait_until(lambda: gone(int((folder / "begun_0").read_text())))
    if then == "last":
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            (folder / f"told_{number}").touch()
            raise
    (folder / f"ended_{number}").touch()
    return number, os.environ.get("OMP_NUM_THREADS")
