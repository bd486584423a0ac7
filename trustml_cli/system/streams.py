"""Standard output and error that may be full, closed or read by nobody: words may be lost there, a run may not."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from trustml_cli.system.printable import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Forgiving(io.FileIO):
    """A file that takes all that is written; what it has no room for is lost, and `error` says why."""

    error: OSError | None = None

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def forgive_streams() -> None:
    """Have writing to standard output and error never fail; characters that they cannot show become backslashes.

    Where one of them is closed it is opened on nothing, so that no file that is opened later takes its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout, sys.stderr = forgiving(sys.stdout, 1), forgiving(sys.stderr, 2)


def forgiving(stream: TextIO | None, number: int) -> TextIO:
    """The stream with this number, buffered and encoded as `stream` was."""
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Forgiving(number, "w", closefd=False)),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", False) or number == 2,
        write_through=getattr(stream, "write_through", False),
    )


def lost_output() -> str | None:
    """Why something that was printed is lost; None where nothing is, or where its reader has seen enough (`head`)."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "error", None)
    return None if error is None or error.errno == errno.EPIPE else str(error.strerror)


def write_if_possible(text: str, to: TextIO) -> None:
    """Write where that works: whatever it says has come to pass already."""
    with suppress(OSError, ValueError):
        to.write(text)
        to.flush()


def print_error(line: str) -> None:
    """One line on standard error."""
    write_if_possible(f"trustml: error: {printable(' '.join(line.split()))}\n", to=sys.stderr)
