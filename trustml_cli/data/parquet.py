"""Images in the Hugging Face layout: a parquet file per split, with encoded images and class numbers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory, check_count
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.pictures import check_size, decode_picture, decode_pictures, one_line, size_text, stack_labels
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import digest, stamp


@dataclass(frozen=True, kw_only=True)
class Parquet(DatasetSource):
    """Images from the files `train` and `test`.

    `image` and `label` name the columns: encoded images as {bytes, path} or bytes, and class numbers or names. With
    `size` the images are brought to so many pixels on each side. Class names come from the file's own description
    where it has one.
    """

    train: Path
    test: Path
    image: str
    label: str
    size: int | None
    channels: int
    cache_dir: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.channels)
        for key, path in (("train", self.train), ("test", self.test)):
            if not path.is_file():
                raise ValueError(f"{key}: no file {path}; give a parquet file with columns {self.image}, {self.label}")

    def read(self) -> Dataset:
        return read_parquet(self, name="parquet", classes=None)


def read_parquet(source: Parquet, name: str, classes: tuple[str, ...] | None) -> Dataset:
    """The data set in the two files of `source`; `classes` overrides what they say of themselves."""
    files = {"train": source.train, "test": source.test}
    labels = {split: read_labels(path, source.label) for split, path in files.items()}
    classes = classes or described_classes(source.train, source.label) or classes_in(labels["train"], source.train)
    numbers = {split: numbered(labels[split], classes, files[split], source.label) for split in files}

    def decode() -> Arrays:
        images = {split: read_images(path, source, f"{name} {split}") for split, path in files.items()}
        if images["train"].shape[1:] != images["test"].shape[1:]:
            raise InputError(
                f"dataset: images in {source.train} are {size_text(images['train'][0])} but in {source.test} "
                f"{size_text(images['test'][0])}; set dataset.size=PIXELS to bring all to one size"
            )
        lossy = {split: count_jpegs(path, source.image) for split, path in files.items()}
        return {f"{split}_images": images[split] for split in files} | {"jpegs": np.array(list(lossy.values()))}

    origin = [*map(stamp, files.values()), source.image, source.size, source.channels, "jpegs counted"]
    arrays, fingerprint = decoded(source.cache_dir, name, origin, decode)
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
    """What is to be said of so many JPEGs among the images; of a data set that was `published` without loss, more."""
    if not jpegs:
        return ()
    told = f"{jpegs:,} of {images:,} images went through JPEG, which is lossy"
    return (f"{told}; these are not the pixels that others measure on" if published else told,)


def count_jpegs(path: Path, column: str) -> int:
    """How many images of the file are encoded as JPEG, by the first bytes of each."""
    values = read_column(path, column)
    contents = (value.get("bytes") if isinstance(value, dict) else value for value in values)
    return sum(isinstance(content, bytes) and content.startswith(b"\xff\xd8\xff") for content in contents)


def open_parquet(path: Path) -> Any:
    """The parquet file at `path`, opened by pyarrow."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(f"dataset: reading {path} needs pyarrow; install it with: pip install '.[parquet]'") from error
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"dataset: {path} is not a whole parquet file ({one_line(error)})") from error


def read_column(path: Path, column: str) -> list[Any]:
    """One column of the file as Python objects."""
    file = open_parquet(path)
    if column not in file.schema_arrow.names:
        raise InputError(f"dataset: {path} has no column {column!r}; it has {', '.join(file.schema_arrow.names)}")
    try:
        values: list[Any] = file.read([column]).column(column).to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"dataset: {path} is damaged ({one_line(error)})") from error
    if not values:
        raise InputError(f"dataset: {path} has no rows")
    return values


def read_labels(path: Path, column: str) -> list[int | str]:
    """The class of every row, as number or name."""
    values = read_column(path, column)
    for row, value in enumerate(values):
        if not isinstance(value, int | str):
            raise InputError(f"dataset: {path} row {row}: {column} is {value!r}, not a class number or name")
    return values


def read_images(path: Path, source: Parquet, label: str) -> Any:
    """Every image of the file, decoded: uint8 [N, C, H, W]."""
    rows = read_column(path, source.image)

    def name(index: int) -> str:
        return f"{path} row {index}"

    def decode(index: int) -> Any:
        value = rows[index]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise InputError(f"dataset: {name(index)}: {source.image} holds no encoded image")
        return decode_picture(content, name(index), source.size, source.channels)

    return decode_pictures(len(rows), decode, label, name)


def described_classes(path: Path, column: str) -> tuple[str, ...] | None:
    """Class names as the `datasets` library writes them into a file's metadata, if it did."""
    metadata = open_parquet(path).schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def classes_in(labels: list[int | str], path: Path) -> tuple[str, ...]:
    """Names for the classes that occur: all numbers from 0 to the largest, or the names in alphabetical order."""
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        check_count(max(numbers) + 1, str(path))
        return tuple(str(number) for number in range(max(numbers) + 1))
    return tuple(sorted({str(label) for label in labels}))


def numbered(labels: list[int | str], classes: tuple[str, ...], path: Path, column: str) -> Any:
    """Class numbers for `labels`; one that is no class is an error that names its row."""
    known: dict[int | str, int] = {name: number for number, name in enumerate(classes)}
    known |= {number: number for number in range(len(classes))}
    for row, label in enumerate(labels):
        if label not in known:
            raise InputError(f"dataset: {path} row {row}: {column}={label!r} is not among the classes {classes}")
    return stack_labels([known[label] for label in labels])
