"""Data sets of the Hugging Face hub, or from a folder written by `save_to_disk`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory, check_class_count
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.pictures import Decoder, decode_pictures, remark_notes, stack_labels
from trustml_cli.system.distribution import needing
from trustml_cli.system.errors import InputError, short, some_of
from trustml_cli.system.files import digest, stamp
from trustml_cli.system.hub import from_hub
from trustml_cli.system.ranges import require

READERS = ("parquet", "arrow", "imagefolder", "cache")  # of the library; some of its others unpickle what they find
TESTS = ("test", "validation", "valid", "val")


@dataclass(frozen=True, kw_only=True)
class HuggingFaceImages(DatasetSource):
    """The images of the data set `id`: a repository of the hub, or a folder written by `save_to_disk`.

    `config` is its configuration, where it has several. `train` and `test` name splits, `image` and `label` columns;
    null takes the split train, the first of test and validation, and the only column of images and of classes. Without
    another split `test_fraction` of the images is held out, with a fixed seed. With `size` the images are resized to
    `size` × `size` pixels; `background` is the colour behind transparent parts.
    """

    id: str
    config: str | None
    train: str | None
    test: str | None
    image: str | None
    label: str | None
    test_fraction: float
    size: int | None
    channels: int
    background: list[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "test_fraction", above=0, below=1)
        Decoder(size=self.size, channels=self.channels, background=self.background)
        with needing("huggingface", "dataset"):
            import datasets  # noqa: F401

    def read(self, cache_dir: Path) -> Dataset:
        splits = self.chosen(self.all_splits())
        first = next(iter(splits.values()))
        image, label = self.column(first, "image", "Image"), self.column(first, "label", "ClassLabel")
        names = {split: names_in(rows, label, self.id) for split, rows in splits.items()}
        classes = next((known for _, known in names.values() if known), None) or classes_in(
            [each for labels, _ in names.values() for each in labels], self.id
        )
        decoder = Decoder(size=self.size, channels=self.channels, background=self.background)

        def decode() -> Arrays:
            arrays: Arrays = {}
            for split, rows in splits.items():
                images, remarks = decode_pictures(
                    len(rows), self.encoded(rows, image, split), decoder, f"{self.id} {split}"
                )
                arrays |= {f"{split}_images": images, f"{split}_remarks": remarks}
            return arrays

        stamps = {split: [stamp(Path(file["filename"])) for file in rows.cache_files] for split, rows in splits.items()}
        rows_of = {split: rows._fingerprint for split, rows in splits.items()}  # of a part of a split
        arrays, fingerprint = decoded(cache_dir, "huggingface", [stamps, rows_of, image, decoder.origin], decode)
        parts = {
            split: InMemory(
                torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(numbered(labels, classes, self.id))
            )
            for split, (labels, _) in names.items()
        }
        if "test" not in parts:
            parts["train"], parts["test"] = parts["train"].divide(self.test_fraction, seed=0)
        remarks = np.sum([arrays[f"{split}_remarks"] for split in splits], axis=0)
        return Dataset(
            train=parts["train"],
            test=parts["test"],
            classes=classes,
            fingerprint=digest([fingerprint, label, classes, [each.labels.tolist() for each in parts.values()]]),
            source=self.id,
            notes=remark_notes(remarks, sum(map(len, parts.values()))),
        )

    def all_splits(self) -> Any:
        """All splits by name. Raises `InputError` where it is not there, or is read by code that could run others'."""
        import datasets

        folder = Path(self.id)
        try:
            with from_hub("id", self.id):
                if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
                    found = datasets.load_from_disk(self.id)
                    return found if isinstance(found, dict) else {"train": found}
                builder = datasets.load_dataset_builder(self.id, self.config)
                if (reader := type(builder).__module__.split(".")[-2]) in READERS:
                    builder.download_and_prepare()
                    return builder.as_dataset()
        except ValueError as error:
            raise InputError(f"dataset.{error}") from error
        raise InputError(
            f"dataset.id: {self.id} has files for the reader {reader!r}; only images in {some_of(READERS[:3])} are read"
        )

    def chosen(self, there: Any) -> dict[str, Any]:
        """The splits `train` and, if there is one, `test`."""
        names = {
            "train": self.train or ("train" if "train" in there or len(there) != 1 else next(iter(there))),
            "test": self.test or next((name for name in TESTS if name in there), None),
        }
        for key, name in names.items():
            if name is not None and name not in there:
                raise InputError(f"dataset.{key}: {self.id} has no split {name!r}; it has {some_of(there)}")
        return {
            key: there[name]
            for key, name in names.items()
            if name is not None and (key, name) != ("test", names["train"])
        }

    def column(self, rows: Any, key: str, kind: str) -> str:
        """The name of the column of images or classes, given or found by its type."""
        given: str | None = getattr(self, key)
        found: list[str] = [name for name, feature in rows.features.items() if type(feature).__name__ == kind]
        if given in rows.features:
            return str(given)
        if given is None and len(found) == 1:
            return found[0]
        if given is None and not found and key in rows.features:
            return key
        wrong = f"no column {given!r}" if given is not None else "several columns of them" if found else "none by type"
        raise InputError(f"dataset.{key}: {self.id} has {wrong}; give one of {some_of(found or rows.features)}")

    def encoded(self, rows: Any, image: str, split: str) -> Iterator[tuple[bytes | Path, str]]:
        """Each image's file, and a name for it. Raises `InputError` for one that is outside of the data set."""
        import datasets

        if type(rows.features[image]).__name__ != "Image":
            raise InputError(f"dataset.image: column {image!r} of {self.id} holds no images")
        inside = [Path(self.id).resolve(), Path(datasets.config.HF_CACHE_HOME).resolve()]
        for number, row in enumerate(rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))):
            content, name = row[image] or {}, f"{self.id} {split} row {number}"
            if content.get("bytes"):
                yield content["bytes"], name
                continue
            path = Path(content.get("path") or "")
            if not path.is_file() or not any(path.resolve().is_relative_to(folder) for folder in inside):
                raise InputError(
                    f"dataset: {name} holds no image, but names {short(str(path))}, which is not in the data set"
                )
            yield path, name


def names_in(rows: Any, label: str, source: str) -> tuple[list[str], tuple[str, ...] | None]:
    """The class of each row by name, and the names of all classes if they are described."""
    values, feature = rows[label], rows.features[label]
    described = getattr(feature, "names", None)
    for number, value in enumerate(values):
        known = 0 <= value < len(described) if described and isinstance(value, int) else isinstance(value, int | str)
        if not known or isinstance(value, bool):
            raise InputError(f"dataset: {source} row {number}: {label} is {short(value)}, not a class number or name")
    names = [described[value] for value in values] if described else list(map(str, values))
    return names, tuple(map(str, described)) if described else None


def classes_in(labels: Sequence[str], source: str) -> tuple[str, ...]:
    """Names of classes that are not described: all numbers up to the largest, or the names in alphabetical order."""
    if all(label.isdecimal() for label in labels):
        check_class_count(largest := max(map(int, labels), default=0) + 1, source)
        return tuple(map(str, range(largest)))
    return tuple(sorted(set(labels)))


def numbered(labels: Sequence[str], classes: Sequence[str], source: str) -> Any:
    """Class numbers, int64 [N]; raises `InputError` for a class that is not among `classes`."""
    numbers = {name: number for number, name in enumerate(classes)}
    if unknown := next((label for label in labels if label not in numbers), None):
        raise InputError(
            f"dataset: {source}: class {short(unknown)} is in one split only; the other has {some_of(classes)}"
        )
    return stack_labels([numbers[label] for label in labels])
