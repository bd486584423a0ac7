"""Atomic writes, digests, folders that are created once, and marks on folders in use."""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial as bound
from glob import escape
from pathlib import Path
from typing import Any

from trustml_cli.system.errors import NOT_WRITABLE, InputError
from trustml_cli.system.locks import NoLocks, locked
from trustml_cli.system.owners import OTHERS_WRITE, changed_by, make_folder, require_own

log = logging.getLogger(__name__)

LONGEST_NAME = 150  # bytes of a file name without its ending; file systems allow 255
THROUGH = (
    "trustml.log",
    ".hydra",
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    ".hydra/overrides.yaml",
    "plots",
    "artifacts",
)
"""Names of files that Hydra or a run writes, and that could be links."""


def write_atomically(path: Path, write: Callable[[Path], object], new: bool = False) -> None:
    """Call `write` on a temporary file beside `path`, then rename it to `path` atomically.

    If `new`, raises FileExistsError where `path` exists already: of several processes only one writes it.
    """
    partial = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        with rename_in_errors(path, partial):
            write(partial)
            if new:
                claim(partial, path)
            else:
                partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def claim(partial: Path, path: Path) -> None:
    """Hard-link the file `partial` as `path`. Raises FileExistsError if `path` exists."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        path.touch(exist_ok=False)
        partial.replace(path)


@contextmanager
def rename_in_errors(path: Path, partial: Path) -> Iterator[None]:
    """Report errors about `partial`, or without a file name, as errors about `path`, the name that the user knows."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(partial))):
            error.filename = str(path)
        raise


def write_json(path: Path, content: Any, new: bool = False) -> None:
    """Write `content` as indented JSON atomically; if `new`, raises FileExistsError where `path` exists."""

    def write(partial: Path) -> None:
        # a file name that is not UTF-8 holds lone surrogates; "backslashreplace" turns them into JSON escapes
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(content, file, indent=2, ensure_ascii=False, default=str)  # piece by piece: it may be long
            file.write("\n")

    write_atomically(path, write, new)


def refuse_links(directory: Path, names: Iterable[str] = THROUGH) -> None:
    """Raise `InputError` if a run in `directory` would write through a link to a file elsewhere."""
    for name in names:
        if (directory / name).is_symlink():
            raise InputError(f"{directory / name}: is a link, and nothing is written through one; remove it")


def is_there(path: Path) -> bool:
    """Whether `path` exists, including a dangling link."""
    return path.is_symlink() or path.exists()


def digest(content: Any) -> str:
    """SHA-256 of `content` as canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def file_name(text: str) -> str:
    """`text` as the name of a file or folder: one part of a path, not hidden, and short enough for any file system.

    Every name from data or from a user that becomes a file name goes through here. A name that had to be altered ends
    with a digest, so that a/b and a_b stay distinct.
    """
    name = re.sub(r"^\.|[^\w.,=+@-]+", "_", text).encode()[: LONGEST_NAME - 9].decode(errors="ignore")
    return name if name and name == text else f"{name}_{digest(text)[:8]}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Stamp = tuple[str, int, int, int, int]


def stamp(path: Path) -> Stamp:
    """Identify a file's content without reading it: absolute path, size in bytes, mtime, inode and ctime.

    Times are in ns. The mtime can be set to any value; the inode and the ctime (last change of content, metadata or
    name) also reveal that a file was replaced by renaming another one over it.
    """
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


def make_once(folder: Path, make: Callable[[Path], None]) -> dict[str, str]:
    """Create `folder` with `make` unless it exists and is intact; returns the SHA-256 of each file in it.

    `make` receives an empty temporary folder, which is renamed to `folder` when `make` returns. Of several concurrent
    processes one creates the folder and the others wait. If a file does not match its stored checksum, the folder is
    created again, with a warning. Without write or lock access, an intact folder is read. Raises `InputError` if there
    is none, or if users other than the current one can write to the parent of `folder`.
    """
    with ExitStack() as until_done:
        try:
            make_folder(folder.parent)
            require_own(folder.parent)
            waiting = bound(log.info, "waiting for another process that makes %s", folder)
            until_done.enter_context(locked(folder.with_name(f"{folder.name}.lock"), waiting))
        except OSError as error:
            if not isinstance(error, NoLocks) and error.errno not in NOT_WRITABLE:
                raise
            checksums = verified_checksums(folder)
            if checksums is not None:
                return checksums
            cannot = "has a file system without locks" if isinstance(error, NoLocks) else "cannot be written to"
            why = f"{folder.parent} {cannot} ({error.strerror})"
            raise InputError(f"cache_dir: {why}; use another with cache_dir=DIR or TRUSTML_CACHE_DIR") from error
        checksums = verified_checksums(folder)
        return fill(folder, make) if checksums is None else checksums


def verified_checksums(folder: Path) -> dict[str, str] | None:
    """The checksums of the files in `folder`, or None if it is absent or one does not match its file."""
    if not folder.exists():
        return None
    try:
        checksums: dict[str, str] = json.loads(own_file(folder / "checksums.json").read_text(encoding="utf-8"))
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"checksums.json"}
        damaged = sorted(there ^ checksums.keys()) or ([] if there else ["it is empty"])
        damaged = damaged or [
            name for name, known in checksums.items() if file_digest(own_file(folder / name)) != known
        ]
    except (OSError, ValueError, AttributeError) as error:
        damaged = [str(error)]
    if damaged:
        log.warning("%s is damaged (%s); making it again", folder, ", ".join(damaged))
        return None
    return checksums


def own_file(path: Path) -> Path:
    """Return `path`; `OSError` unless it is a regular file, not a link, that no other user can change."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or changed_by(status):
        raise OSError(errno.EINVAL, "is no file that you alone can write to", str(path))
    return path


def fill(folder: Path, make: Callable[[Path], None]) -> dict[str, str]:
    """Run `make` in a partial folder, then rename it; returns the checksums. The caller must hold the lock."""
    for left in folder.parent.glob(f".{escape(folder.name)}-*"):  # left by a killed process
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        with rename_in_errors(folder, partial):
            partial.mkdir(mode=0o755)
            make(partial)
            checksums = {path.name: file_digest(path) for path in sorted(partial.iterdir())}
            write_json(partial / "checksums.json", checksums)
            for path in partial.iterdir():
                path.chmod(path.stat().st_mode & ~OTHERS_WRITE)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return checksums


@contextmanager
def mark_in_use(folder: Path) -> Iterator[None]:
    """Mark `folder` as in use inside the context; the mark is a lock, so it disappears when the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_in_use(folder: Path) -> bool:
    """Whether a living process has marked `folder` as in use; also False where the file system cannot tell."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # the folder was deleted, or belongs to another user
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False
