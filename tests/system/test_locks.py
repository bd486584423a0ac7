"""Locks: what holds one, what blocks nobody, and files that none can be made of."""

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from tests.processes import at_once, ended, forked, wait_until
from trustml_cli.system.locks import NoLocks, locked


def test_a_lock_is_held_by_one_at_a_time_and_no_longer_than_its_process(tmp_path: Path) -> None:
    path, holding, release = tmp_path / "a.lock", tmp_path / "holding", tmp_path / "release"

    def hold() -> None:
        with locked(path):
            holding.touch()
            wait_until(release.exists)
            os.kill(os.getpid(), signal.SIGKILL)

    holder = forked(hold)
    wait_until(holding.exists)
    with locked(path, waiting=release.touch):
        assert ended(holder) == -signal.SIGKILL
    assert release.exists(), "it waited"
    with locked(path, waiting=lambda: pytest.fail("the file that is left over blocks")):
        pass


def test_a_lock_whose_file_is_removed_and_made_again_is_still_one(tmp_path: Path) -> None:
    path, inside = tmp_path / "a.lock", tmp_path / "inside"

    def second() -> None:
        with locked(path, waiting=(tmp_path / "waits").touch):
            assert not inside.exists()

    def third() -> None:
        with locked(path):
            inside.touch()
            waiting = forked(lambda: locked(path, waiting=(tmp_path / "again").touch).__enter__())
            wait_until((tmp_path / "again").exists)
            inside.unlink()
        assert ended(waiting) == 0

    with locked(path):
        waits = forked(second)
        wait_until((tmp_path / "waits").exists)
        path.unlink()
        assert at_once(third) == [0]
    assert ended(waits) == 0


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_only_a_regular_file_is_locked(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    if kind == "link":
        (tmp_path / "precious").write_text("mine")
        path.symlink_to(tmp_path / "precious")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/null")
    with pytest.raises(OSError, match=str(path)), locked(path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_told_of_at_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(NoLocks, match=f"{os.strerror(number)}: '{tmp_path}/a.lock'"), locked(tmp_path / "a.lock"):
        pass
