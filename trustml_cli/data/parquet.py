"""Images in the Hugging Face layout: a parquet file per split, with encoded images and class numbers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory, check_class_count, check_name
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.pictures import AT_ONCE, check_size, decode_pictures, size_text, stack_labels
from trustml_cli.system.distribution import needing
from trustml_cli.system.errors import InputError, one_line, short, some_of
from trustml_cli.system.files import digest, stamp
from trustml_cli.system.user_file import memory_for_one_read, opened

JPEG = b"\xff\xd8\xff"  # the first bytes of every JPEG file
SMALLEST = 10  # minimum bytes of an encoded image
FEW = 10_000  # up to so many rows may share one image, which the file stores once
LABELS = 2**16  # labels per arrow batch


@dataclass(frozen=True, kw_only=True)
class Parquet(DatasetSource):
    """Images from the files `train` and `test`.

    `image` and `label` name the columns: encoded images as {bytes, path} or bytes, and class numbers or names. With
    `size` the images are resized to `size` × `size` pixels. Class names are taken from the file's metadata, if any.
    """

    train: Path
    test: Path
    image: str
    label: str
    size: int | None
    channels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.channels)
        for key, path in (("train", self.train), ("test", self.test)):
            if not path.is_file():
                raise ValueError(f"{key}: no file {path}; give a parquet file with columns {self.image}, {self.label}")

    def read(self, cache_dir: Path) -> Dataset:
        return read_parquet(self, cache_dir, name="parquet", classes=None)


def read_parquet(source: Parquet, cache_dir: Path, name: str, classes: tuple[str, ...] | None) -> Dataset:
    """Read the data set in the two files of `source`; `classes` overrides the class names in the files."""
    files = {"train": source.train, "test": source.test}
    labels = {split: read_labels(path, source.label) for split, path in files.items()}
    classes = classes or described_classes(source.train, source.label) or classes_in(labels["train"], source.train)
    numbers = {split: numbered(labels[split], classes, files[split], source.label) for split in files}

    def decode() -> Arrays:
        read = {split: read_images(path, source, f"{name} {split}") for split, path in files.items()}
        images = {split: pixels for split, (pixels, _) in read.items()}
        if images["train"].shape[1:] != images["test"].shape[1:]:
            raise InputError(
                f"dataset: images in {source.train} are {size_text(images['train'][0])} but in {source.test} "
                f"{size_text(images['test'][0])}; set dataset.size=PIXELS to bring all to one size"
            )
        jpegs = [count for _, count in read.values()]
        return {f"{split}_images": images[split] for split in files} | {"jpegs": np.array(jpegs)}

    origin = [*map(stamp, files.values()), source.image, source.size, source.channels, "jpegs counted"]
    arrays, fingerprint = decoded(cache_dir, name, origin, decode)
    splits = {
        split: InMemory(torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(numbers[split]))
        for split in files
    }
    return Dataset(
        train=splits["train"],
        test=splits["test"],
        classes=classes,
        fingerprint=digest([fingerprint, classes, {split: labels.tolist() for split, labels in numbers.items()}]),
        source=f"{source.train} and {source.test}",
        notes=lossy_notes(int(arrays["jpegs"].sum()), sum(map(len, splits.values())), published=name == "cifar10"),
    )


def lossy_notes(jpegs: int, images: int, published: bool) -> tuple[str, ...]:
    """Notes on the number of JPEG images; for a data set that was `published` losslessly, also that pixels differ."""
    if not jpegs:
        return ()
    told = f"{jpegs:,} of {images:,} images went through JPEG, which is lossy"
    return (f"{told}; these are not the pixels that others measure on" if published else told,)


@contextmanager
def open_parquet(path: Path, dictionary: Sequence[str] = ()) -> Iterator[Any]:
    """Open the parquet file at `path` with pyarrow; the columns in `dictionary` are read dictionary-encoded.

    Raises `InputError` where it is not a parquet file, where it has more rows than images of `SMALLEST` bytes fit into
    it, or where its values unpack to more than half of the memory.
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
            if (rows > FEW and rows * SMALLEST > size) or unpacked > memory_for_one_read():
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


def read_labels(path: Path, column: str) -> list[int | str]:
    """The class of each row, as number or name; raises `InputError` for anything else."""
    labels: list[int | str] = []
    with open_parquet(path, dictionary=[column]) as file:
        for part in column_of(file, path, column, LABELS):
            for value in getattr(part, "dictionary", ()):  # each distinct value once
                check_name(len(text) if isinstance(text := value.as_py(), str) else 0, str(path))
            for value in part.to_pylist():
                if not isinstance(value, int | str):
                    raise InputError(
                        f"dataset: {path} row {len(labels)}: {column} is {short(value)}, not a class number or name"
                    )
                labels.append(value)
    return labels


def read_images(path: Path, source: Parquet, label: str) -> tuple[Any, int]:
    """All images of the file, decoded, as uint8 [N, C, H, W], and the number of those encoded as JPEG."""
    jpegs = 0

    def pictures(file: Any) -> Iterator[tuple[bytes, str]]:
        nonlocal jpegs
        row = 0
        for part in column_of(file, path, source.image, AT_ONCE):
            for value in part.to_pylist():
                content = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(content, bytes):
                    raise InputError(f"dataset: {path} row {row}: {source.image} holds no encoded image")
                jpegs += content.startswith(JPEG)
                yield content, f"{path} row {row}"
                row += 1

    with open_parquet(path) as file:
        images = decode_pictures(file.metadata.num_rows, pictures(file), source.size, source.channels, label)
    return images, jpegs


def described_classes(path: Path, column: str) -> tuple[str, ...] | None:
    """Class names from the metadata that the `datasets` library writes; None if there are none."""
    with open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def classes_in(labels: list[int | str], path: Path) -> tuple[str, ...]:
    """Class names from the labels: all numbers from 0 to the largest, or the distinct names in alphabetical order."""
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        check_class_count(max(numbers) + 1, str(path))
        return tuple(str(number) for number in range(max(numbers) + 1))
    return tuple(sorted({str(label) for label in labels}))


def numbered(labels: list[int | str], classes: tuple[str, ...], path: Path, column: str) -> Any:
    """Class numbers for `labels`, int64 [N]; raises `InputError` naming the row of an unknown class."""
    known: dict[int | str, int] = {name: number for number, name in enumerate(classes)}
    known |= {number: number for number in range(len(classes))}
    for row, label in enumerate(labels):
        if label not in known:
            raise InputError(f"dataset: {path} row {row}: {column}={label!r} is not among the classes {short(classes)}")
    return stack_labels([known[label] for label in labels])
