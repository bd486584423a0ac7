"""Standard output and error that may be full or closed: output may be lost, but the run goes on."""

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
    """A raw file whose writes never fail; data that cannot be written is dropped, and `error` holds the reason."""

    error: OSError | None = None

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def forgive_streams() -> None:
    """Make writing to standard output and error never fail; unencodable characters become backslash escapes.

    A closed stream is opened on /dev/null, so that no file opened later gets its descriptor.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    sys.stdout, sys.stderr = forgiving(sys.stdout, 1), forgiving(sys.stderr, 2)


def forgiving(stream: TextIO | None, number: int) -> TextIO:
    """A forgiving stream on descriptor `number`, with the buffering and encoding of `stream`."""
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
    """Why printed output was lost; None if none was, or if its reader closed the pipe early (`head`)."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "error", None)
    return None if error is None or error.errno == errno.EPIPE else str(error.strerror)


def write_if_possible(text: str, to: TextIO) -> None:
    """Write `text`, ignoring failures: it only reports what has already happened."""
    with suppress(OSError, ValueError):
        to.write(text)
        to.flush()


def print_error(line: str) -> None:
    """Print one line to standard error."""
    write_if_possible(f"trustml: error: {printable(' '.join(line.split()))}\n", to=sys.stderr)
