"""Classification data sets of torchvision, by name, in torchvision's layout."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.pictures import Decoder, decode_pictures, remark_notes, stack_labels
from trustml_cli.system.errors import InputError, one_line
from trustml_cli.system.files import digest, stamp
from trustml_cli.system.hardware import is_out_of_memory
from trustml_cli.system.ranges import require

DIGITS = tuple("0123456789")
SIGNS = (
    *(f"speed limit {limit}" for limit in (20, 30, 50, 60, 70, 80)), "end of speed limit 80", "speed limit 100",
    "speed limit 120", "no overtaking", "no overtaking by lorries", "priority at the next crossing", "priority road",
    "give way", "stop", "no vehicles", "no lorries", "no entry", "danger", "bend to the left", "bend to the right",
    "double bend", "uneven road", "slippery road", "road narrows on the right", "road works", "traffic lights",
    "pedestrians", "children", "bicycles", "ice or snow", "wild animals", "end of all limits", "turn right",
    "turn left", "straight on", "straight on or right", "straight on or left", "keep right", "keep left", "roundabout",
    "end of no overtaking", "end of no overtaking by lorries",
)  # fmt: skip
"""The 43 traffic signs of GTSRB, which torchvision has by number only."""


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set of torchvision are, and the arguments of its class for each split.

    `files` is a pattern below the data folder. `test` is None where there is one split only. `classes` are the names of
    classes that torchvision does not give, and `name` is that of torchvision's class where it differs.
    """

    files: str
    train: Mapping[str, Any] = field(default_factory=lambda: {"split": "train"})
    test: Mapping[str, Any] | None = field(default_factory=lambda: {"split": "test"})
    classes: tuple[str, ...] | None = None
    name: str | None = None


FLAG: dict[str, Any] = {"train": {"train": True}, "test": {"train": False}}
ONE: dict[str, Any] = {"train": {}, "test": None}


def emnist(split: str) -> Layout:
    """The layout of one of the six ways to divide EMNIST."""
    return Layout("EMNIST/raw/*", {"split": split, "train": True}, {"split": split, "train": False}, name="EMNIST")


LAYOUTS = {
    "Caltech101": Layout("caltech101/**/*", **ONE),
    "Caltech256": Layout("caltech256/**/*", **ONE),
    "CIFAR100": Layout("cifar-100-python/*", **FLAG),
    "Country211": Layout("country211/**/*"),
    "DTD": Layout("dtd/**/*"),
    "EMNIST": emnist("balanced"),
    **{f"EMNIST-{split}": emnist(split) for split in ("byclass", "bymerge", "digits", "letters", "mnist")},
    "EuroSAT": Layout("eurosat/**/*", **ONE),
    "FER2013": Layout("fer2013/*"),
    "FGVCAircraft": Layout("fgvc-aircraft-2013b/**/*", train={"split": "trainval"}),
    "Flowers102": Layout("flowers-102/**/*"),
    "Food101": Layout("food-101/**/*"),
    "GTSRB": Layout("gtsrb/**/*", classes=SIGNS),
    "Imagenette": Layout("imagenette2/**/*", test={"split": "val"}),
    "KMNIST": Layout("KMNIST/raw/*", **FLAG),
    "OxfordIIITPet": Layout("oxford-iiit-pet/**/*", train={"split": "trainval"}),
    "PCAM": Layout("pcam/*", classes=("normal", "tumor")),
    "QMNIST": Layout("QMNIST/raw/*", **FLAG),
    "RenderedSST2": Layout("rendered-sst2/**/*"),
    "SEMEION": Layout("semeion.data", **ONE, classes=DIGITS),
    "STL10": Layout("stl10_binary/*"),
    "StanfordCars": Layout("stanford_cars/**/*"),
    "SUN397": Layout("SUN397/**/*", **ONE),
    "SVHN": Layout("t[er]*_32x32.mat", classes=DIGITS),
    "USPS": Layout("usps*", **FLAG, classes=DIGITS),
}
OWN = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10", "ImageNet": "image_folder"}
"""Data sets of torchvision with a choice of their own here."""


@dataclass(frozen=True, kw_only=True)
class TorchvisionImages(DatasetSource):
    """The data set of torchvision called `name`, read from `data_dir` in torchvision's layout, else downloaded there.

    `test_fraction` of the images is held out, with a fixed seed, where it has one split only. With `size` the images
    are resized to `size` × `size` pixels. `channels` is 1 or 3; null takes what the first image has.
    """

    name: str
    data_dir: Path
    test_fraction: float
    size: int | None
    channels: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "test_fraction", above=0, below=1)
        Decoder(size=self.size, channels=self.channels or 3, background=[1.0])
        if self.name in OWN:
            raise ValueError(f"name: {self.name} is dataset={OWN[self.name]} here")
        if self.name not in LAYOUTS:
            near = get_close_matches(self.name.lower(), [name.lower() for name in LAYOUTS], n=1)
            close = [name for name in LAYOUTS if name.lower() in near]
            raise ValueError(
                f"name: no data set {self.name!r} of torchvision; "
                + (f"did you mean {close[0]}?" if close else f"there are {', '.join(LAYOUTS)}")
            )

    def read(self, cache_dir: Path) -> Dataset:
        layout = LAYOUTS[self.name]
        files = self.files(layout)
        if not files:
            self.open(layout, "train", download=True)
            files = self.files(layout)
        origin = [self.name, self.size, self.channels, [stamp(file) for file in files]]
        arrays, fingerprint = decoded(
            cache_dir, f"torchvision-{self.name.lower()}", origin, lambda: self.decode(layout)
        )
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items() if key.endswith(("images", "labels"))}
        train = InMemory(tensors["train_images"], tensors["train_labels"])
        if layout.test is None:
            train, test = train.divide(self.test_fraction, seed=0)
            fingerprint = digest([fingerprint, self.test_fraction])
        else:
            test = InMemory(tensors["test_images"], tensors["test_labels"])
        return Dataset(
            train=train,
            test=test,
            classes=tuple(map(str, arrays["classes"])),
            fingerprint=fingerprint,
            source=f"{self.name} in {self.data_dir}",
            notes=remark_notes(arrays["remarks"], len(train) + len(test), leave_out=["jpeg"]),
        )

    def files(self, layout: Layout) -> list[Path]:
        """What there is of the data set, in alphabetical order."""
        return sorted(path for path in self.data_dir.glob(layout.files) if path.is_file())

    def open(self, layout: Layout, split: str, download: bool = False) -> Any:
        """Torchvision's object of a split; raises `InputError` where it cannot be read or downloaded."""
        from torchvision import datasets

        words = {**getattr(layout, split), **({"download": download} if self.name != "FER2013" else {})}
        try:
            return getattr(datasets, layout.name or self.name)(self.data_dir, **words)
        except Exception as error:  # damaged files, servers and missing packages make torchvision raise anything
            if is_out_of_memory(error):
                raise
            done = "not there, and could not be downloaded" if download else "damaged or incomplete"
            raise InputError(
                f"dataset: {self.name} ({self.data_dir / layout.files}) is {done} ({one_line(error)}); put it there in "
                "torchvision's layout, or set data_dir (or TRUSTML_DATA_DIR)"
            ) from error

    def decode(self, layout: Layout) -> Arrays:
        """All images and labels, and the names of the classes."""
        arrays: Arrays = {}
        names: Any = layout.classes
        remarks = np.zeros(0, dtype=np.int64)
        for split in ("train", "test") if layout.test is not None else ("train",):
            source = self.open(layout, split)
            if not len(source):
                raise InputError(f"dataset: {self.name} in {self.data_dir} has no {split} images")
            names = names or getattr(source, "classes", None) or getattr(source, "categories", None)
            labels: list[int] = []
            with self.opening(split, 0), source[0][0] as first:
                channels = self.channels or (1 if first.mode in ("1", "L", "LA") else 3)
            decoder = Decoder(size=self.size, channels=channels, background=[1.0])
            encoded = self.encoded(source, split, labels, turned=layout.name == "EMNIST")
            images, counts = decode_pictures(len(source), encoded, decoder, f"{self.name} {split}")
            arrays |= {f"{split}_images": images, f"{split}_labels": stack_labels(labels)}
            remarks = counts if not remarks.size else remarks + counts
        if layout.classes and (known := len(set(arrays["train_labels"].tolist()))) < len(layout.classes):
            raise InputError(
                f"dataset: {self.name} in {self.data_dir} is incomplete: {known} of {len(layout.classes)} classes have "
                "training images, so torchvision's numbers are not those of the classes"
            )
        if names and names[0] == "N/A":  # EMNIST's letters are numbered from 1
            names = names[1:]
            arrays |= {key: value - 1 for key, value in arrays.items() if key.endswith("labels")}
        names = names or range(max(value.max() for key, value in arrays.items() if key.endswith("labels")) + 1)
        texts = [", ".join(name) if isinstance(name, tuple) else str(name) for name in names]
        return {**arrays, "classes": np.array(texts), "remarks": remarks}

    def encoded(self, source: Any, split: str, labels: list[int], turned: bool) -> Iterator[tuple[bytes, str]]:
        """Each image as a PNG file, for the decoder of all pictures; its class number is added to `labels`.

        EMNIST's images lie on their side in its files and are `turned` upright.
        """
        for number in range(len(source)):
            content = io.BytesIO()
            with self.opening(split, number):
                image, label = source[number]
                with image:  # some of them are open files
                    upright = image.transpose(Image.Transpose.TRANSPOSE) if turned else image
                    upright.save(content, "PNG", compress_level=0)
            labels.append(int(label))
            yield content.getvalue(), f"{self.name} {split} image {number}"

    @contextmanager
    def opening(self, split: str, number: int) -> Iterator[None]:
        """Turn any error inside into an `InputError` that names the image."""
        try:
            yield
        except Exception as error:  # a damaged file makes Pillow raise anything
            if is_out_of_memory(error):
                raise
            what = f"{self.name} {split} image {number}"
            raise InputError(f"dataset: {what} cannot be read ({one_line(error)})") from error
