"""A user's own images, in folders named after their classes."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory, Split, check_class_count
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.image_file import FORMATS
from trustml_cli.data.pictures import check_size, decode_picture, decode_pictures, stack_labels
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import digest, file_digest, stamp
from trustml_cli.system.printable import readable
from trustml_cli.system.ranges import require

ENDINGS = {ending for ending, format_name in Image.registered_extensions().items() if format_name in FORMATS}


class Streaming(Enum):
    """Whether images are decoded for each batch instead of once into the cache."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True)
class Listing:
    """The image files of one split and their class numbers."""

    files: list[Path]
    labels: list[int]


@dataclass(frozen=True, kw_only=True)
class ImageFolder(DatasetSource):
    """Images from `root/{train,test}/CLASS/*.jpg` (or any format that Pillow reads).

    Each image's shorter side is scaled to `size` pixels and the centre square is cropped. `stream` decides whether
    images are decoded once into the cache or for each batch by `workers` processes; `auto` streams data sets that
    would take more than half of the machine's memory.
    """

    root: Path
    size: int
    channels: int
    stream: Streaming
    workers: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.channels)
        require(self, "workers", at_least=0)
        for split in ("train", "test"):
            if not (self.root / split).is_dir():
                raise ValueError(f"root: no folder {self.root / split}; images belong in ROOT/{{train,test}}/CLASS/")

    def read(self, cache_dir: Path) -> Dataset:
        folders = class_folders(self.root / "train")
        if missing := set(class_folders(self.root / "test")) ^ set(folders):
            raise InputError(f"dataset.root: {self.root}: train and test differ in class {sorted(missing)[0]!r}")
        listings = {split: list_pictures(self.root / split, folders) for split in ("train", "test")}
        classes = tuple(map(readable, folders))
        origin = [self.size, self.channels, *(stamp(file) for part in listings.values() for file in part.files)]
        splits: dict[str, Split]
        if self.streams(sum(len(part.files) for part in listings.values())):
            _, contents = decoded(
                cache_dir, f"image_folder_digests-{self.root.name[:40]}", origin[2:], lambda: digests(listings)
            )
            fingerprint = digest([contents, self.size, self.channels])
            splits = {split: Streamed(part, self.size, self.channels, self.workers) for split, part in listings.items()}
        else:
            arrays, fingerprint = decoded(
                cache_dir, f"image_folder-{self.root.name[:40]}", origin, lambda: self.decode(listings)
            )
            splits = {
                split: InMemory(
                    torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(stack_labels(part.labels))
                )
                for split, part in listings.items()
            }
        return Dataset(
            train=splits["train"],
            test=splits["test"],
            classes=classes,
            fingerprint=digest([fingerprint, classes, [part.labels for part in listings.values()]]),
            source=str(self.root),
        )

    def streams(self, count: int) -> bool:
        """Whether `count` images are decoded batch by batch."""
        if self.stream is not Streaming.auto:
            return self.stream is Streaming.always
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return count * self.channels * self.size**2 > memory // 2

    def decode(self, listings: dict[str, Listing]) -> Arrays:
        """Decode all images of all splits."""
        return {
            f"{split}_images": decode_pictures(
                len(part.files),
                ((file, str(file)) for file in part.files),
                self.size,
                self.channels,
                f"{self.root.name} {split}",
            )
            for split, part in listings.items()
        }


def digests(listings: dict[str, Listing]) -> Arrays:
    """The SHA-256 of all files of each split, uint8 [files, 32]: the fingerprint of data sets that are streamed."""

    def of(split: str, files: list[Path]) -> NDArray[np.uint8]:
        with ThreadPoolExecutor() as pool:
            coming = pool.map(file_digest, files)
            known = list(tqdm(coming, total=len(files), desc=f"reading {split}", unit="image", disable=None))
        return np.frombuffer(bytes.fromhex("".join(known)), dtype=np.uint8).reshape(len(files), -1)

    return {f"{split}_digests": of(split, part.files) for split, part in listings.items()}


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in `folder`, in alphabetical order, without hidden ones."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise InputError(f"dataset.root: {folder} has no class folders; images belong in {folder}/CLASS/")
    check_class_count(len(names), str(folder))
    return tuple(names)


def list_pictures(folder: Path, classes: tuple[str, ...]) -> Listing:
    """All files with an image extension in the class folders of `folder`; raises `InputError` for an empty class."""
    files: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(
            path
            for path in (folder / name).iterdir()
            if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
        )
        if not found:
            raise InputError(f"dataset.root: {folder / name} holds no images; a class needs at least one")
        if other := next((path for path in found if not path.is_file()), None):
            raise InputError(f"dataset.root: {other} is no file, or a link to none; remove it")
        files += found
        labels += [number] * len(found)
    return Listing(files, labels)


class Streamed(Split):
    """Images that worker processes decode for each batch."""

    def __init__(self, listing: Listing, size: int, channels: int, workers: int) -> None:
        self.pictures = PictureFiles(listing.files, size, channels)
        self.labels = torch.tensor(listing.labels, dtype=torch.int64)
        self.shape = (channels, size, size)
        self.workers = workers

    def subset(self, indices: Tensor) -> Self:
        chosen = Listing([self.pictures.files[i] for i in indices], self.labels[indices].tolist())
        return type(self)(chosen, self.pictures.size, self.pictures.channels, self.workers)

    def stream(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        indices = torch.split(order.cpu(), batch_size)
        loader = DataLoader(
            self.pictures,
            batch_sampler=[part.tolist() for part in indices],
            num_workers=self.workers,
            generator=torch.Generator(),  # a separate one: streaming must not change the random numbers of training
        )
        pictures = iter(loader)
        for part in indices:
            try:
                images = next(pictures)
            except InputError as error:  # from a worker process: a traceback with the message in the last line
                message = str(error).splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
                raise InputError(message) from error
            yield images, self.labels[part]


class PictureFiles(TorchDataset[Tensor]):
    """The image files as a map-style dataset for torch's DataLoader."""

    def __init__(self, files: list[Path], size: int, channels: int) -> None:
        self.files, self.size, self.channels = files, size, channels

    def __getitem__(self, index: int) -> Tensor:
        path = self.files[index]
        return torch.from_numpy(decode_picture(path, str(path), self.size, self.channels).copy())
