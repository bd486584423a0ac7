"""Files from users or third parties, opened so that they cannot block, exhaust memory or lead outside a folder."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
MB, GB = 2**20, 2**30
DEEPEST = 50  # nested lists and mappings in a YAML file


@contextmanager
def opened(path: Path, limit: int | None = None, inside: Path | None = None) -> Iterator[BinaryIO]:
    """The regular file `path`, open for reading in binary.

    Raises `OSError` that names the file if it is a pipe, a device, a socket or a folder, if it holds more than `limit`
    bytes, or if links lead out of the folder `inside`. Other kinds of files are not even opened: a pipe blocks, and
    opening some devices has side effects.
    """
    if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
        raise OSError(errno.ELOOP, f"is a link that leads out of {inside}", str(path))
    require_regular(path, path.stat())
    # if a pipe has replaced the file since, O_NONBLOCK keeps the call from blocking
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        require_regular(path, status)
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EINVAL, f"holds {status.st_size:,} bytes; {limit:,} at most are read", str(path))
        yield file


def require_regular(path: Path, status: os.stat_result) -> None:
    """Raise `OSError` unless `status`, the stat result of `path`, describes a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def memory_for_one_read() -> int:
    """The most bytes that may be read from one file: half of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def read_bytes(path: Path, limit: int, inside: Path | None = None) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises `OSError` as `opened` does."""
    with opened(path, limit, inside) as file:
        content = file.read(limit + 1)
    if len(content) > limit:  # it has grown since, or its file system does not report its size
        raise OSError(errno.EINVAL, f"holds more than {limit:,} bytes", str(path))
    return content


def read_text(path: Path, limit: int, inside: Path | None = None) -> str:
    """The text of a regular file in UTF-8. Raises `OSError` as `opened` does, and ValueError where it is not UTF-8."""
    try:
        return read_bytes(path, limit, inside).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start})") from error


def read_yaml(text: str) -> Any:
    """Parse YAML into Python's built-in types; ValueError if it is malformed, deeply nested or has aliases.

    Aliases can expand a few lines to any size or make a value contain itself. Files written by trustml have none.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"has an alias (*{event.anchor}), which is not read here")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"is nested more than {DEEPEST} deep")
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML ({' '.join(str(error).split())})") from error
