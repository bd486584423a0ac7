"""One parquet file: its class labels, and its images as they are encoded."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from trustml_cli.data.dataset import check_name
from trustml_cli.data.pictures import AT_ONCE
from trustml_cli.system.distribution import needing
from trustml_cli.system.errors import InputError, one_line, short, some_of
from trustml_cli.system.user_file import memory_for_one_read, opened

SMALLEST = 10  # minimum bytes of an encoded image, or of a path, before compression
FEW = 10_000  # up to so many rows may share one image, which the file stores once
LABELS = 2**16  # labels per arrow batch


@dataclass(frozen=True)
class Labels:
    """The labels of the rows of `file`, and the names that its metadata has for class numbers, if any."""

    file: Path
    labels: list[int | str]
    classes: tuple[str, ...] | None

    def numbered(self, classes: tuple[str, ...], column: str) -> list[int]:
        """The labels as numbers of `classes`; numbers stand for the names of this file, or for `classes` without any.

        Raises `InputError` naming the row of an unknown class.
        """
        own = classes if self.classes is None else self.classes
        known: dict[int | str, int] = {name: number for number, name in enumerate(classes)}
        known |= {number: known[name] for number, name in enumerate(own) if name in known}
        for row, label in enumerate(self.labels):
            if label not in known:
                name = own[label] if isinstance(label, int) and 0 <= label < len(own) else label
                raise InputError(
                    f"dataset: {self.file} row {row}: {column}={name!r} is not among the classes {short(classes)}"
                )
        return [known[label] for label in self.labels]


@contextmanager
def open_parquet(path: Path, dictionary: Sequence[str] = ()) -> Iterator[Any]:
    """Open the parquet file at `path` with pyarrow; the columns in `dictionary` are read dictionary-encoded.

    Raises `InputError` where it is not a parquet file, where it has more rows than bytes, or than images of `SMALLEST`
    bytes fit into its values, or where these unpack to more than half of the memory.
    """
    with needing("parquet", f"dataset: {path}"):
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    try:
        with opened(path) as content:
            there = ParquetFile(content).schema_arrow.names
            file = ParquetFile(content, read_dictionary=[name for name in dictionary if name in there])
            rows, size = file.metadata.num_rows, path.stat().st_size
            groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
            unpacked = sum(group.total_byte_size for group in groups)
            too_many = rows > FEW and (rows > size or rows * SMALLEST > unpacked)
            if too_many or unpacked > memory_for_one_read():
                raise InputError(
                    f"dataset: {path} unpacks to {rows:,} rows and {unpacked:,} bytes from {size:,}; that is no images"
                )
            yield file
    except (ArrowException, OSError) as error:
        raise InputError(f"dataset: {path} is not a whole parquet file ({one_line(error)})") from error


def column_of(file: Any, path: Path, column: str, rows: int) -> Iterator[Any]:
    """Yield one column of an open file as arrow arrays of up to `rows` rows; raises `InputError` where it is absent."""
    if column not in file.schema_arrow.names:
        raise InputError(f"dataset: {path} has no column {column!r}; it has {some_of(file.schema_arrow.names)}")
    if not file.metadata.num_rows:
        raise InputError(f"dataset: {path} has no rows")
    try:
        for batch in file.iter_batches(batch_size=rows, columns=[column]):
            yield batch.column(0)
    except (OSError, ValueError) as error:
        raise InputError(f"dataset: {path} is damaged ({one_line(error)})") from error


def read_labels(path: Path, column: str) -> Labels:
    """The class of each row, as number or name; raises `InputError` for anything else."""
    labels: list[int | str] = []
    with open_parquet(path, dictionary=[column]) as file:
        classes = described_classes(file.schema_arrow.metadata or {}, column, path)
        for part in column_of(file, path, column, LABELS):
            for value in getattr(part, "dictionary", ()):  # each distinct value once
                check_name(len(text) if isinstance(text := value.as_py(), str) else 0, str(path))
            for value in part.to_pylist():
                if not isinstance(value, int | str):
                    raise InputError(
                        f"dataset: {path} row {len(labels)}: {column} is {short(value)}, not a class number or name"
                    )
                labels.append(normalize("NFC", value) if isinstance(value, str) else value)
    return Labels(path, labels, classes)


def described_classes(metadata: dict[bytes, bytes], column: str, path: Path) -> tuple[str, ...] | None:
    """Class names from the metadata that the `datasets` library writes; None if there are none."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(names, list):
        return None
    found = tuple(normalize("NFC", str(name)) for name in names)
    if len(set(found)) < len(found):
        raise InputError(f"dataset: {path} has two classes of one name among {short(found)}")
    return found


def encoded_images(path: Path, columns: Sequence[str]) -> Iterator[tuple[Path | bytes, str]]:
    """The encoded images, or the files that hold them, each with a name for messages.

    They are in the first of `columns` that the file has. A path is relative to the folder of the file, which it must
    not leave. Raises `InputError` for a row without an image.
    """
    with open_parquet(path) as file:
        column = next((name for name in columns if name in file.schema_arrow.names), columns[0])
        row = 0
        for part in column_of(file, path, column, AT_ONCE):
            for value in part.to_pylist():
                content, place = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
                if isinstance(content, bytes):
                    yield content, f"{path} row {row}"
                elif isinstance(place, str) and place:
                    yield beside(path, place, row), f"{path} row {row} ({place})"
                else:
                    raise InputError(f"dataset: {path} row {row}: {column} holds no encoded image")
                row += 1


def beside(file: Path, place: str, row: int) -> Path:
    """The file that a row of `file` names, relative to its folder; raises `InputError` where it is not below that."""
    path, folder = file.parent / place, file.parent
    if ".." in Path(place).parts or not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"dataset: {file} row {row}: {short(place)} leads out of the folder of this file")
    if not path.is_file():
        raise InputError(f"dataset: {file} row {row}: no file {path}")
    return path


def files_beside(path: Path, columns: Sequence[str]) -> list[Path]:
    """The files that the rows name in place of encoded images."""
    with open_parquet(path) as file:
        name = next((name for name in columns if name in file.schema_arrow.names), columns[0])
        leaves = [file.metadata.schema.column(number).path for number in range(file.metadata.num_columns)]
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        held = [group.column(leaves.index(f"{name}.bytes")).statistics for group in groups if f"{name}.bytes" in leaves]
        texts = name in leaves and str(file.schema_arrow.field(name).type) in ("string", "large_string")
    if texts or any(each is None or not each.has_null_count or each.null_count for each in held):
        return [content for content, _ in encoded_images(path, columns) if isinstance(content, Path)]
    return []


def row_count(path: Path) -> int:
    """The number of rows in a file."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)
