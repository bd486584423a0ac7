"""Files that are whole or absent, digests, folders that are made once, and folders that are at work."""

import errno
import fcntl
import hashlib
import json
import logging
import os
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

THROUGH = (
    "trustml.log",
    ".hydra",
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    ".hydra/overrides.yaml",
    "plots",
    "artifacts",
)
"""Names that Hydra, or a run in its folders, would write to through a link."""


def write_atomically(path: Path, write: Callable[[Path], object], new: bool = False) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step.

    Raises FileExistsError if the file shall be `new` and there is one already: of several processes one writes it.
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
    """Give the file `partial` the name `path`, too. Raises FileExistsError if there is such a file."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        path.touch(exist_ok=False)
        partial.replace(path)


@contextmanager
def rename_in_errors(path: Path, partial: Path) -> Iterator[None]:
    """Have an error about `partial`, or about a file without a name, be about `path`: nobody knows the other."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(partial))):
            error.filename = str(path)
        raise


def write_json(path: Path, content: Any, new: bool = False) -> None:
    """`content` as readable JSON, whole or not at all; FileExistsError if the file shall be `new` and is there."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    # a file name that is not UTF-8 holds lone surrogates; backslashes make them JSON's own escapes
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"), new)


def refuse_links(directory: Path, names: Iterable[str] = THROUGH) -> None:
    """Raise `InputError` where a run in `directory` would write to a file elsewhere, through a link."""
    for name in names:
        if (directory / name).is_symlink():
            raise InputError(f"{directory / name}: is a link, and nothing is written through one; remove it")


def is_there(path: Path) -> bool:
    """Whether there is anything of this name, be it a link to nothing."""
    return path.is_symlink() or path.exists()


def digest(content: Any) -> str:
    """SHA-256 of `content` as canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Stamp = tuple[str, int, int, int, int]


def stamp(path: Path) -> Stamp:
    """What identifies a file's content without reading it: absolute path, size in bytes, and what no copy shares.

    That is the time of modification in ns, which may be set at will, the inode, and the time in ns at which anything
    about the file was changed, its name included. Of files that are moved over one another these tell.
    """
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


def make_once(folder: Path, make: Callable[[Path], None]) -> dict[str, str]:
    """Have `folder` filled by `make`, unless it is there and whole; returns the SHA-256 of each file in it.

    `make` is given an empty folder, which takes the name of `folder` in one step when it is done. Any number of
    processes may ask at once: one makes it, the others wait. A folder whose files do not match the checksums that
    were written with them is made anew, with a warning. Where nothing can be written or locked, a folder that is whole
    is read; `InputError` if there is none, and where others than the user can write to what `folder` is in.
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
            raise InputError(f"cache_dir: {why}; take another with cache_dir=DIR or TRUSTML_CACHE_DIR") from error
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
    """The same path; `OSError` unless it is a regular file, no link to one, that others than the user cannot change."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or changed_by(status):
        raise OSError(errno.EINVAL, "is no file that you alone can write to", str(path))
    return path


def fill(folder: Path, make: Callable[[Path], None]) -> dict[str, str]:
    """`make` into a partial folder, then rename it; returns the checksums. Whoever calls this holds the lock."""
    for left in folder.parent.glob(f".{escape(folder.name)}-*"):  # by one who was killed
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
    """Mark `folder` as at work inside; should the process end there, however it ends, the mark is gone with it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_in_use(folder: Path) -> bool:
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
