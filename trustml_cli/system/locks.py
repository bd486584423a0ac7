"""A lock between processes: a file that stays where it is, and is locked as long as somebody holds it."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class NoLocks(OSError):
    """The file system of a file takes no locks, or fails to."""


@contextmanager
def locked(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock of the file `path`, which is made where it is absent; `waiting` is called if another holds it.

    The lock ends with its process, however that ends: a file that was left over blocks nobody. Raises `OSError` that
    names the file where it cannot be made or is not a regular file, and `NoLocks` where it cannot be locked.
    """
    while True:
        handle = opened(path)
        try:
            lock(handle, path, waiting)
            if still_there(handle, path):
                try:
                    yield
                finally:
                    fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was forked meanwhile has the handle, too
                return
        finally:
            os.close(handle)


def opened(path: Path) -> int:
    """A handle of the file; never of a link, and no pipe in its place makes it wait."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileExistsError(errno.EEXIST, "is not a regular file", str(path))
    return handle


def lock(handle: int, path: Path, waiting: Callable[[], object]) -> None:
    """Lock the file as soon as nobody else does."""
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # some network file systems say the latter
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise NoLocks(error.errno, error.strerror, str(path)) from error


def still_there(handle: int, path: Path) -> bool:
    """Whether the file has not been removed meanwhile; who comes next would lock another."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
