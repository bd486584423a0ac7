"""The two ways in which a run may end badly; `run.main` turns them into exit statuses. And errors in one line."""

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
    """An error's text without line breaks; of one about a file, what is wrong with it, for who calls this names it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return with_kind(error) if isinstance(error, KeyError) else text or type(error).__name__


def with_kind(error: BaseException) -> str:
    """An error of somebody's code in one line, with its type: a text such as 'x' says nothing without it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def short(value: object) -> str:
    """A value as Python writes it, in a few letters."""
    text = repr(value)
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def some_of(names: Iterable[object]) -> str:
    """Names for a message: all, or the first few of many; long ones without their end."""
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
    """What went wrong in one line; of files and folders also which it is and what to do."""
    if isinstance(error, InputError | RunFailed):
        return str(error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}; {REMEDIES[error.errno]}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def file_error_behind(error: BaseException | None) -> OSError | None:
    """The error about a file or folder that is behind this one, if there is one."""
    while error is not None and not (isinstance(error, OSError) and error.errno in REMEDIES):
        error = error.__cause__ or error.__context__
    return error


TRACEBACK = "TRUSTML_TRACEBACK"  # the user's HYDRA_FULL_ERROR, before this program sets that for itself


def traceback_wanted() -> bool:
    """Whether the user asked for tracebacks; the processes of a launcher know it too."""
    return os.environ.get(TRACEBACK) == "1"
