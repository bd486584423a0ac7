"""A lock between processes: `flock` on a file that is never removed."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class NoLocks(OSError):
    """The file system does not support locks, or locking failed."""


@contextmanager
def locked(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock of the file `path`, created if absent; `waiting` is called if another process holds it.

    The lock is released when its process ends in any way, so a left-over file blocks nothing. Raises `OSError` that
    names the file if it cannot be created or is not a regular file, and `NoLocks` if it cannot be locked.
    """
    while True:
        handle = opened(path)
        try:
            lock(handle, path, waiting)
            if still_there(handle, path):
                try:
                    yield
                finally:
                    fcntl.flock(handle, fcntl.LOCK_UN)  # a child forked meanwhile has inherited the handle
                return
        finally:
            os.close(handle)


def opened(path: Path) -> int:
    """Open the file and return its descriptor; refuses links, and never blocks on a pipe."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileExistsError(errno.EEXIST, "is not a regular file", str(path))
    return handle


def lock(handle: int, path: Path, waiting: Callable[[], object]) -> None:
    """Lock the file, waiting until no other process holds the lock."""
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # some network file systems raise the latter
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise NoLocks(error.errno, error.strerror, str(path)) from error


def still_there(handle: int, path: Path) -> bool:
    """Whether the file has not been removed meanwhile; if it has, the next process would lock a new file."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
