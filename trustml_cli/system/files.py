"""Files that are whole or absent, digests, folders that are made once, and folders that are at work."""

import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trustml_cli.system.errors import NOT_WRITABLE, InputError

log = logging.getLogger(__name__)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step."""
    partial = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        with naming_file(path, partial):
            write(partial)
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def naming_file(path: Path, partial: Path) -> Iterator[None]:
    """Have an error about `partial`, or about a file without a name, be about `path`: nobody knows the other."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(partial))):
            error.filename = str(path)
        raise


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    # a file name that is not UTF-8 holds lone surrogates; backslashes make them JSON's own escapes
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))


def digest(content: Any) -> str:
    """SHA-256 of `content` as canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> tuple[str, int, int]:
    """What identifies a file's content without reading it: absolute path, size in bytes, modification time in ns."""
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def make_once(folder: Path, make: Callable[[Path], None]) -> dict[str, str]:
    """Have `folder` filled by `make`, unless it is there and whole; returns the SHA-256 of each file in it.

    `make` is given an empty folder, which takes the name of `folder` in one step when it is done. Any number of
    processes may ask at once: one makes it, the others wait. A folder whose files do not match the checksums that
    were written with them is made anew, with a warning. Where nothing can be written, a folder that is whole is read;
    `InputError` if there is none.
    """
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)
    except Timeout:
        log.info("waiting for another process that makes %s", folder)
        lock.acquire()
    except OSError as error:
        checksums = verified_checksums(folder) if error.errno in NOT_WRITABLE else None
        if checksums is not None:
            return checksums
        if error.errno not in NOT_WRITABLE:
            raise
        why = f"{folder.parent} cannot be written to ({error.strerror})"
        raise InputError(f"cache_dir: {why}; take another with cache_dir=DIR or TRUSTML_CACHE_DIR") from error
    try:
        checksums = verified_checksums(folder)
        return fill(folder, make) if checksums is None else checksums
    finally:
        lock.release()


def verified_checksums(folder: Path) -> dict[str, str] | None:
    """The checksums of the files in `folder`, or None if it is absent or one does not match its file."""
    if not folder.exists():
        return None
    try:
        checksums: dict[str, str] = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
        damaged = [name for name, known in checksums.items() if file_digest(folder / name) != known]
    except (OSError, ValueError, AttributeError) as error:
        damaged = [str(error)]
    if damaged:
        log.warning("%s is damaged (%s); making it again", folder, ", ".join(damaged))
        return None
    return checksums


def fill(folder: Path, make: Callable[[Path], None]) -> dict[str, str]:
    """`make` into a partial folder, then rename it; returns the checksums. Whoever calls this holds the lock."""
    for left in folder.parent.glob(f".{escape(folder.name)}-*"):  # by one who was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        with naming_file(folder, partial):
            partial.mkdir()
            make(partial)
            checksums = {path.name: file_digest(path) for path in sorted(partial.iterdir())}
            write_json(partial / "checksums.json", checksums)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return checksums


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark `folder` as at work inside; should the process end there, however it ends, the mark is gone with it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a living process holds `folder`; False, too, where the file system cannot tell."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # gone, or somebody else's
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
