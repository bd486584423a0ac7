"""Reads a table's file, text or parquet, with pandas; refuses what pandas would misread in silence."""

import codecs
import csv
import io
import logging
import lzma
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from pandas.errors import ParserWarning

from trustml_cli.data.unpacked import unpacked
from trustml_cli.system.distribution import needing
from trustml_cli.system.errors import InputError, one_line, short, some_of
from trustml_cli.system.printable import printable
from trustml_cli.system.user_file import memory_for_one_read, opened

log = logging.getLogger(__name__)

LONGEST_HEADER = 2**20  # bytes
MOST_COLUMNS = 20_000
SEPARATORS = (",", ";", "\t", "|")  # the first of those with the most columns in the header is taken
AT_ONCE = 20_000  # rows
BOMS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, csv.Error, zipfile.BadZipFile, lzma.LZMAError, zlib.error)
FOREIGN = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it",
    b"SQLite": "an SQLite database; export its table as CSV",
}


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How cells are written in a text file.

    `separator` None: the one of `SEPARATORS` that fits the header. `encoding` None: by the byte order mark, else UTF-8.
    `names` are the columns of a file without a header. What follows `comment` in a line is left out.
    """

    separator: str | None = None
    encoding: str | None = None
    comment: str | None = None
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class RawTable:
    """The cells of a file: text as it is written, NaN where there is none; in parquet also numbers.

    Column names are unique: the second `a` is `a.1`, as in pandas, and a column without a name has a number. `doubled`
    and `unnamed` hold these columns. `notes` are remarks on the file as a whole.
    """

    frame: pandas.DataFrame
    doubled: dict[str, str]
    unnamed: tuple[str, ...]
    notes: tuple[str, ...]


def read_table(path: Path, how: TextFormat) -> RawTable:
    """Read the table in `path`. Raises `InputError` where it is no table, empty, cut off, too wide or too large."""
    try:
        with opened(path) as file:
            head = file.read(8)
        if kind := next((kind for magic, kind in FOREIGN.items() if head.startswith(magic)), None):
            raise ValueError(f"it is {kind}")
        if head.startswith(b"PAR1"):
            frame, header, notes = read_parquet(path)
        else:
            frame, header, notes = read_text(path, how)
    except UnicodeDecodeError as error:
        advice = "give its encoding with dataset.encoding, e.g. cp1252, or save it as UTF-8"
        raise InputError(
            f"dataset: {path} cannot be read as a table (it is no {error.encoding} text); {advice}"
        ) from error
    except UNREADABLE as error:
        raise InputError(f"dataset: {path} cannot be read as a table ({one_line(error)})") from error
    frame.columns, doubled, unnamed = unique_names(header)
    empty = frame.isna().all(axis=1)
    if empty.any():
        notes.append(f"{empty.sum():,} rows without any value are left out")
        frame = frame[~empty]
    if frame.empty:
        raise InputError(f"dataset: {path} has no rows")
    return RawTable(frame.reset_index(drop=True), doubled, unnamed, tuple(notes))


def read_text(path: Path, how: TextFormat) -> tuple[pandas.DataFrame, list[str], list[str]]:
    """The cells of a text file as text, its header, and remarks."""
    encoding, separator, header, before = recognise(path, how)
    if len(header) > MOST_COLUMNS:
        raise ValueError(f"it has {len(header):,} columns; {MOST_COLUMNS:,} at most are read")
    options: dict[str, Any] = {
        "sep": separator,
        "encoding": encoding,
        "comment": how.comment,
        "skipinitialspace": True,
        "keep_default_na": False,
        "dtype": object,
    }
    with unpacked(path, largest()) as file, warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)
        try:
            frame = pandas.read_csv(
                file,
                header=None if how.names else before,
                names=range(len(header)),
                index_col=False,  # else pandas takes a first cell too many for the row's name, and shifts all columns
                na_values=[""],
                **options,
            )
        except ParserWarning as error:
            why = f"its rows have more cells than its header, which is {some_of(header)}"
            raise ValueError(f"{why}; name every column in the first line, or give dataset.separator") from error
    log.info("dataset: cells are separated by %r", separator)
    notes = []
    last = max((number for number, name in enumerate(header) if name), default=0)
    if (
        len(frame) > 1
        and frame[last].isna().any()
        and (rows := short_rows(path, len(header), last, options, before + 1 if not how.names else 0))
    ):
        if rows == [len(frame)]:
            raise ValueError("it ends in the middle of a row; get the whole file")
        notes.append(
            f"{len(rows):,} rows have fewer cells than the header, the first is row {rows[0]:,}; what is absent counts "
            "as missing"
        )
    return frame, header, notes


def recognise(path: Path, how: TextFormat) -> tuple[str, str, list[str], int]:
    """The encoding, the separator and the header of a text file, and the number of empty rows before it."""
    with unpacked(path, largest()) as file:
        head = file.read(LONGEST_HEADER)
    encoding = how.encoding or next((name for mark, name in BOMS if head.startswith(mark)), "utf-8")
    text = head.decode(encoding, errors="replace")
    if "\0" in text[:1000]:
        raise ValueError("it holds bytes of zero; if it is text, give dataset.encoding, e.g. utf-16")
    if how.names:
        return encoding, how.separator or ",", list(how.names), 0
    found = {separator: first_row(text, separator) for separator in (how.separator or SEPARATORS)}
    separator = max(found, key=lambda one: len(found[one][0]))
    header, before = found[separator]
    return encoding, separator, [printable(name.strip()) for name in header], before


def first_row(text: str, separator: str) -> tuple[list[str], int]:
    """The first row with a cell that is not empty, and the number of rows before it that pandas counts."""
    before = 0
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True):
        if any(row):
            return row, before
        before += len(row) > 1  # blank lines do not count
    return [], 0


def short_rows(path: Path, width: int, last: int, options: dict[str, Any], before: int) -> list[int]:
    """The numbers, from 1, of rows without a cell in the column `last` of `width`; `before` are no rows of data.

    Of pandas' engines, which read alike, the fast one makes no difference between an absent cell and an empty one.
    """
    found: list[int] = []
    options = {**options, "header": None, "names": range(width + 1), "index_col": False}
    limit = csv.field_size_limit(sys.maxsize)  # of the whole process
    try:
        with (
            unpacked(path, largest()) as file,
            pandas.read_csv(file, engine="python", chunksize=AT_ONCE, **options) as chunks,
        ):
            for chunk in chunks:
                found += (chunk.index[chunk[last].isna()] + 1 - before).tolist()
    finally:
        csv.field_size_limit(limit)
    return [number for number in found if number > 0]


def largest() -> int:
    """The most bytes of a text file: its table takes about eight times as much memory."""
    return memory_for_one_read() // 8


def unique_names(header: Sequence[str]) -> tuple[list[str], dict[str, str], tuple[str, ...]]:
    """Unique names of the columns, which of them stand for another one's name, and which had none."""
    names: list[str] = []
    doubled: dict[str, str] = {}
    unnamed: list[str] = []
    taken = set(header)
    for number, name in enumerate(header, start=1):
        own = name or f"column {number}"
        if own in names or (not name and own in taken):
            again = 1
            while f"{own}.{again}" in taken:
                again += 1
            own = f"{own}.{again}"
            if name:
                doubled[own] = name
        if not name:
            unnamed.append(own)
        taken.add(own)
        names.append(own)
    return names, doubled, tuple(unnamed)


def read_parquet(path: Path) -> tuple[pandas.DataFrame, list[str], list[str]]:
    """The columns of a parquet file, numbers or text, their names, and remarks."""
    with needing("parquet", f"dataset: {path}"):
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile
    limit = memory_for_one_read()
    with opened(path) as content, one_error(ArrowException):
        schema = ParquetFile(content).schema_arrow
        if nested := [one.name for one in schema if types.is_nested(one.type)]:
            raise ValueError(f"column {short(nested[0])} holds lists or structures; a table has single values")
        # texts stay encoded as a dictionary: a file of a few bytes can unpack to millions of equal long ones
        file = ParquetFile(content, read_dictionary=schema.names)
        meta = file.metadata
        if meta.num_columns > MOST_COLUMNS:
            raise ValueError(f"it has {meta.num_columns:,} columns; {MOST_COLUMNS:,} at most are read")
        size = 8 * meta.num_rows * meta.num_columns
        size += sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
        if size > limit:
            raise ValueError(f"its {meta.num_rows:,} rows take {size:,} bytes; {limit:,} at most are read")
        frame: pandas.DataFrame = file.read().to_pandas(ignore_metadata=True)
    header = ["" if name.startswith("__index_level_") else printable(name.strip()) for name in schema.names]
    frame.columns = pandas.RangeIndex(len(header))
    for name in frame:
        if not is_number(frame[name]):
            frame[name] = frame[name].astype(object).map(str, na_action="ignore")
    return frame, header, []


@contextmanager
def one_error(kind: type[Exception]) -> Iterator[None]:
    """Turn an error of this kind into a ValueError."""
    try:
        yield
    except kind as error:
        raise ValueError(one_line(error)) from error


def is_number(column: "pandas.Series[Any]") -> bool:
    """Whether the values are numbers, and not true or false."""
    return pandas.api.types.is_numeric_dtype(column) and not pandas.api.types.is_bool_dtype(column)
