"""The two exceptions that end a run, mapped to exit statuses by `cli.main`, and one-line error texts."""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice


class InputError(Exception):
    """The command, a config or an input is wrong (exit 2). The message is one line and says what would be right."""


class RunFailed(Exception):
    """The run failed after computing began, e.g. the loss became NaN (exit 1)."""


@contextmanager
def prefix_errors(key: str) -> Iterator[None]:
    """Turn a ValueError from inside into an InputError that names the config key.

    Methods know their own fields only: `epsilon: must be …` becomes `task.epsilon: must be …`.
    """
    try:
        yield
    except ValueError as error:
        text = " ".join(str(error).split())
        names_a_field = re.match(r"\w+: ", text) is not None
        raise InputError(".".join(filter(None, (key, text))) if names_a_field else f"{key}: {text}") from error


def one_line(error: BaseException) -> str:
    """The error's text without line breaks; for a file error only the reason, because the caller names the file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return with_kind(error) if isinstance(error, KeyError) else text or type(error).__name__


def with_kind(error: BaseException) -> str:
    """An error raised by user code in one line, with its type: a text such as 'x' is unclear without it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def short(value: object) -> str:
    """The value's `repr`, truncated to a few characters."""
    text = repr(value)
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def some_of(names: Iterable[object]) -> str:
    """Names for a message: all of them, or the first few of many; long names are truncated."""
    few = list(islice(names, FEW + 1))
    shown = [name if len(name) <= SHORT else f"{name[: SHORT - 1]}…" for name in map(str, few)]
    return ", ".join(shown if len(few) <= FEW else [*shown[:FEW], "…"])


SHORT = 60  # characters of a value in a message
FEW = 20  # names in a message
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
GONE = (errno.ENOENT, errno.ESTALE)
REMEDIES = {
    **dict.fromkeys(FULL, "make room there, or take other places with output_dir and cache_dir"),
    **dict.fromkeys(NOT_WRITABLE, "have it made writable, or take other places with output_dir and cache_dir"),
    errno.ENAMETOOLONG: "take a shorter one; output_dir, cache_dir and data_dir are where names begin",
    **dict.fromkeys(GONE, "somebody has removed it; begin again"),
}


def error_line(error: BaseException) -> str:
    """The error in one line; for errors about files and folders it also names the path and the remedy."""
    if isinstance(error, InputError | RunFailed):
        return str(error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}; {REMEDIES[error.errno]}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def file_error_behind(error: BaseException | None) -> OSError | None:
    """The file or folder error that caused `error`, if there is one."""
    while error is not None and not (isinstance(error, OSError) and error.errno in REMEDIES):
        error = error.__cause__ or error.__context__
    return error


TRACEBACK = "TRUSTML_TRACEBACK"  # holds the user's HYDRA_FULL_ERROR before this program sets that variable


def traceback_wanted() -> bool:
    """Whether the user asked for tracebacks; launcher processes inherit the answer through the environment."""
    return os.environ.get(TRACEBACK) == "1"
