"""Files that may be compressed: unpacked as they are read, up to a limit."""

import bz2
import errno
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from trustml_cli.system.errors import some_of
from trustml_cli.system.user_file import opened

PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"PK\3\4": lambda file: only_member(zipfile.ZipFile(file)),
}


@contextmanager
def unpacked(path: Path, limit: int) -> Iterator[BinaryIO]:
    """The content of a file, unpacked where it begins as a gzip, bzip2, xz or zip file does.

    Raises `OSError` where it holds more than `limit` bytes, packed or not.
    """
    with opened(path, limit) as file:
        head = file.read(6)
        file.seek(0)
        unpack = next((unpack for magic, unpack in PACKED.items() if head.startswith(magic)), None)
        if unpack is None:
            yield file
        else:
            with unpack(file) as content:
                yield io.BufferedReader(Limited(content, limit))


def only_member(archive: zipfile.ZipFile) -> Any:
    """The one file in a zip archive; ValueError where there are more, or none."""
    names = [one.filename for one in archive.infolist() if not one.is_dir()]
    if "[Content_Types].xml" in names:
        raise ValueError("it is an Excel workbook; save its sheet as CSV")
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ValueError(f"it holds {len(names)} files ({some_of(names)}); one table is wanted")
    return archive.open(names[0])


class Limited(io.RawIOBase):
    """Reads from `file`; OSError after `limit` bytes."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file, self.limit, self.left = file, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.file.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise OSError(errno.EINVAL, f"unpacks to more than {self.limit:,} bytes")
        buffer[: len(content)] = content
        return len(content)
