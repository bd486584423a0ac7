"""A user's own images, in folders named after their classes."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from trustml_cli.data.class_folders import LAYOUT, Listing, read_folders
from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory, Split
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.pictures import AT_ONCE, Decoder, decode_pictures, remark_notes, stack_labels
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import digest, file_digest, stamp
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require


class Streaming(Enum):
    """Whether images are decoded for each batch instead of once into the cache."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True, kw_only=True)
class ImageFolder(DatasetSource):
    """Images in `root/{train,test}/CLASS/` or in `root/CLASS/`, in subfolders too, in any format that Pillow reads.

    Without a folder test, val or valid, the share `test_fraction` of each class is held out for testing, with a fixed
    seed. Each image's shorter side is scaled to `size` pixels and the centre square is cropped; `background` is the
    colour behind transparent parts. `stream` decides whether images are decoded once into the cache, or for each batch
    by `workers` processes; `auto` streams data sets that would take more than half of the machine's memory.
    """

    root: Path
    test_fraction: float
    size: int
    channels: int
    background: list[float]
    stream: Streaming
    workers: int

    def __post_init__(self) -> None:
        super().__post_init__()
        Decoder(size=self.size, channels=self.channels, background=self.background)
        require(self, "test_fraction", at_least=0.01, at_most=0.9)
        require(self, "workers", at_least=0)
        if not self.root.is_dir():
            raise ValueError(f"root: no folder {self.root}; {LAYOUT}")

    @property
    def decoder(self) -> Decoder:
        """How an image file becomes an array."""
        return Decoder(size=self.size, channels=self.channels, background=self.background)

    def read(self, cache_dir: Path) -> Dataset:
        folders = read_folders(self.root, self.test_fraction)
        listings, notes = folders.listings, folders.notes
        stamps = {split: [stamp(file) for file in part.files] for split, part in listings.items()}
        count = sum(map(len, stamps.values()))
        splits: dict[str, Split]
        if self.streams(count):
            _, contents = decoded(
                cache_dir, f"image_folder_digests-{self.root.name[:40]}", stamps, lambda: digests(listings)
            )
            fingerprint = digest([contents, self.decoder.origin])
            splits = {split: Streamed(part, self.decoder, self.workers) for split, part in listings.items()}
        else:
            origin = [self.decoder.origin, stamps]
            arrays, fingerprint = decoded(
                cache_dir, f"image_folder-{self.root.name[:40]}", origin, lambda: self.decode(listings)
            )
            splits = {
                split: InMemory(
                    torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(stack_labels(part.labels))
                )
                for split, part in listings.items()
            }
            notes += remark_notes(arrays["remarks"], count, leave_out=["jpeg"])  # its name says so
        return Dataset(
            train=splits["train"],
            test=splits["test"],
            classes=folders.classes,
            fingerprint=digest([fingerprint, folders.classes, [part.labels for part in listings.values()]]),
            source=str(self.root),
            notes=notes,
        )

    def streams(self, count: int) -> bool:
        """Whether `count` images are decoded batch by batch."""
        if self.stream is not Streaming.auto:
            return self.stream is Streaming.always
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return count * self.channels * self.size**2 > memory // 2

    def decode(self, listings: dict[str, Listing]) -> Arrays:
        """Decode all images of all splits."""
        read = {
            split: decode_pictures(
                len(part.files), ((file, str(file)) for file in part.files), self.decoder, f"{self.root.name} {split}"
            )
            for split, part in listings.items()
        }
        images = {f"{split}_images": pixels for split, (pixels, _) in read.items()}
        return images | {"remarks": np.sum([remarks for _, remarks in read.values()], axis=0)}


def digests(listings: dict[str, Listing]) -> Arrays:
    """The SHA-256 of all files of each split, uint8 [files, 32]: the fingerprint of data sets that are streamed."""

    def of(split: str, files: list[Path]) -> NDArray[np.uint8]:
        with ThreadPoolExecutor() as pool:
            # in parts: of every file that is waited for there is a future of 2 kB
            parts = (files[start : start + AT_ONCE] for start in range(0, len(files), AT_ONCE))
            coming = chain.from_iterable(pool.map(file_digest, part) for part in parts)
            known = list(Progress(coming, total=len(files), desc=f"reading {split}", unit="image"))
        return np.frombuffer(bytes.fromhex("".join(known)), dtype=np.uint8).reshape(len(files), -1)

    return {f"{split}_digests": of(split, part.files) for split, part in listings.items()}


class Streamed(Split):
    """Images that worker processes decode for each batch."""

    def __init__(self, listing: Listing, decoder: Decoder, workers: int) -> None:
        assert decoder.size is not None
        self.pictures = PictureFiles(listing.files, decoder)
        self.labels = torch.tensor(listing.labels, dtype=torch.int64)
        self.shape = (decoder.channels, decoder.size, decoder.size)
        self.workers = workers

    def subset(self, indices: Tensor) -> Self:
        chosen = Listing([self.pictures.files[i] for i in indices], self.labels[indices].tolist())
        return type(self)(chosen, self.pictures.decoder, self.workers)

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

    def __init__(self, files: list[Path], decoder: Decoder) -> None:
        self.files, self.decoder = files, decoder

    def __getitem__(self, index: int) -> Tensor:
        path = self.files[index]
        return torch.from_numpy(self.decoder(path, str(path)).pixels.copy())
