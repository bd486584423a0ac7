"""Images in the Hugging Face layout: parquet files for each split, with encoded images and class numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory, check_class_count
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.parquet_file import Labels, encoded_images, files_beside, read_labels, row_count
from trustml_cli.data.pictures import Decoder, decode_pictures, remark_notes, size_text, stack_labels
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import digest, stamp

NAMES = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
"""Beginnings of file names that belong to a split, the first choice first."""


@dataclass(frozen=True, kw_only=True)
class Parquet(DatasetSource):
    """Images from parquet files.

    `train` and `test` are files, patterns such as train-*.parquet, or folders with files of such names; both are in the
    folder `root` if they are not given, and the validation split is the test set where there is no other. `image` names
    the column of encoded images, {bytes, path} or bytes or paths relative to the file; of several names the first that
    the file has. `label` names the column of class numbers or names. Names of classes are taken from the file's
    metadata, if any; where files list them in another order, numbers are matched by name. With `size` the images are
    resized to `size` × `size` pixels; `background` is the colour behind transparent parts.
    """

    root: Path | None
    train: list[Path] | None
    test: list[Path] | None
    image: list[str]
    label: str
    size: int | None
    channels: int
    background: list[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        Decoder(size=self.size, channels=self.channels, background=self.background)
        if not self.image:
            raise ValueError("image: needs the name of a column")
        self.files("train")
        self.files("test")

    @property
    def decoder(self) -> Decoder:
        """How an encoded image becomes an array."""
        return Decoder(size=self.size, channels=self.channels, background=self.background)

    def files(self, split: str) -> list[Path]:
        """The files of a split. Raises ValueError where there is none."""
        given: list[Path] | None = getattr(self, split)
        if not given:
            raise ValueError(f"{split}: needs parquet files; give dataset.train and dataset.test, or dataset.root")
        return [file for path in given for file in shards(path.expanduser(), split)]

    def read(self, cache_dir: Path) -> Dataset:
        return read_parquet(self, cache_dir, name="parquet", classes=None)


def shards(path: Path, split: str) -> list[Path]:
    """The parquet files of `split` that `path` stands for: a file, a pattern, or a folder as a hub has it."""
    if path.is_file():
        return [path]
    if path.is_dir():
        for name in NAMES[split]:
            for pattern in (f"{name}.parquet", f"{name}-*.parquet", f"{name}/*.parquet"):
                if found := sorted([*path.glob(pattern), *path.glob(f"data/{pattern}")]):
                    return found
        raise ValueError(f"{split}: {path} has no {' or '.join(f'{name}-*.parquet' for name in NAMES[split])}")
    if not path.is_symlink() and (found := sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))):
        return found
    raise ValueError(f"{split}: no file {path}; give parquet files with columns of images and labels")


def read_parquet(source: Parquet, cache_dir: Path, name: str, classes: tuple[str, ...] | None) -> Dataset:
    """Read the data set in the files of `source`; `classes` are its published names, if it has some."""
    files = {split: source.files(split) for split in NAMES}
    read = {split: [read_labels(path, source.label) for path in files[split]] for split in files}
    every = [part for parts in read.values() for part in parts]
    classes = classes or next((part.classes for part in every if part.classes), None) or classes_in(read["train"])
    numbers = {
        split: stack_labels([number for part in parts for number in part.numbered(classes, source.label)])
        for split, parts in read.items()
    }

    def decode() -> Arrays:
        decoded_splits = {split: decode_files(files[split], source, f"{name} {split}") for split in files}
        images = {split: pixels for split, (pixels, _) in decoded_splits.items()}
        if images["train"].shape[1:] != images["test"].shape[1:]:
            raise InputError(
                f"dataset: images in {files['train'][0]} are {size_text(images['train'][0])} but in "
                f"{files['test'][0]} {size_text(images['test'][0])}; set dataset.size=PIXELS to bring all to one size"
            )
        remarks = sum(counts for _, counts in decoded_splits.values())
        return {f"{split}_images": images[split] for split in files} | {"remarks": np.asarray(remarks)}

    linked = [file for part in every for file in files_beside(part.file, source.image)]
    stamps = {split: [stamp(path) for path in paths] for split, paths in files.items()}
    origin = [stamps, source.image, source.decoder.origin, [stamp(path) for path in linked]]
    arrays, fingerprint = decoded(cache_dir, name, origin, decode)
    splits = {
        split: InMemory(torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(numbers[split]))
        for split in files
    }
    notes = remark_notes(arrays["remarks"], sum(map(len, splits.values())))
    if name == "cifar10":
        notes = tuple(f"{note}; these are not the pixels that others measure on" for note in notes)
    undescribed = [str(part.file) for part in every if part.classes is None]
    if 0 < len(undescribed) < len(every):
        notes += (f"{undescribed[0]} has no names of classes; its numbers are taken as those of the other files",)
    return Dataset(
        train=splits["train"],
        test=splits["test"],
        classes=classes,
        fingerprint=digest([fingerprint, classes, {split: labels.tolist() for split, labels in numbers.items()}]),
        source=" and ".join(", ".join(map(str, paths)) for paths in files.values()),
        notes=notes,
    )


def decode_files(files: Sequence[Path], source: Parquet, label: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images of the files as uint8 [N, C, H, W], and the counts of what is to be said of them."""
    images = (image for path in files for image in encoded_images(path, source.image))
    return decode_pictures(sum(map(row_count, files)), images, source.decoder, label)


def classes_in(parts: Sequence[Labels]) -> tuple[str, ...]:
    """Class names from the labels: all numbers from 0 to the largest, or the distinct names in alphabetical order."""
    labels = {label for part in parts for label in part.labels}
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        check_class_count(max(numbers) + 1, str(parts[0].file))
        return tuple(str(number) for number in range(max(numbers) + 1))
    return tuple(sorted(map(str, labels)))
