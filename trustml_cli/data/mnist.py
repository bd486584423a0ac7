"""MNIST and Fashion-MNIST, in torchvision's layout."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.system.errors import InputError, one_line
from trustml_cli.system.files import stamp
from trustml_cli.system.user_file import opened

FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@dataclass(frozen=True, kw_only=True)
class Mnist(DatasetSource):
    """60,000 + 10,000 handwritten digits, 1×28×28 (LeCun et al. 1998).

    Read from `data_dir/MNIST/raw`, torchvision's layout, and downloaded there by torchvision if absent.
    """

    data_dir: Path

    # What differs between MNIST and its drop-in replacements:
    def torchvision_name(self) -> str:
        """The name of the class in torchvision.datasets and of the folder in `data_dir`."""
        return "MNIST"

    def class_names(self) -> tuple[str, ...]:
        """Names of the ten classes, in the order of their numbers."""
        return tuple("0123456789")

    def read(self, cache_dir: Path) -> Dataset:
        name = self.torchvision_name()
        folder = self.data_dir / name / "raw"
        if not all((folder / file).is_file() for file in FILES):
            self.download(folder)
        origin = [stamp(folder / file) for file in FILES]
        arrays, fingerprint = decoded(cache_dir, name.lower(), origin, lambda: read_idx(folder))
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return Dataset(
            train=InMemory(tensors["train_images"], tensors["train_labels"]),
            test=InMemory(tensors["test_images"], tensors["test_labels"]),
            classes=self.class_names(),
            fingerprint=fingerprint,
            source=str(folder),
        )

    def download(self, folder: Path) -> None:
        """Download the four files into `folder` with torchvision; raises `InputError` where that fails."""
        from torchvision import datasets

        name = self.torchvision_name()
        try:
            getattr(datasets, name)(self.data_dir, download=True)
        except (URLError, RuntimeError, OSError) as error:
            raise InputError(
                f"dataset: {name} is not in {folder} and could not be downloaded ({one_line(error)}); put {FILES[0]}, "
                f"{FILES[1]}, {FILES[2]} and {FILES[3]} there, or set data_dir (or TRUSTML_DATA_DIR)"
            ) from error


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Mnist):
    """60,000 + 10,000 articles of clothing, 1×28×28 (Xiao et al. 2017, arXiv 1708.07747)."""

    def torchvision_name(self) -> str:
        return "FashionMNIST"

    def class_names(self) -> tuple[str, ...]:
        return (
            "T-shirt/top", "trouser", "pullover", "dress", "coat",
            "sandal", "shirt", "sneaker", "bag", "ankle boot",
        )  # fmt: skip


def read_idx_file(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: 0, 0, 8 (the type uint8), number of dimensions, size of each (big-endian), values.

    Raises ValueError where the header differs or the number of values does not match the sizes.
    """
    with opened(path) as file:
        begins = file.read(4)
        if begins != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it begins with {begins.hex(' ') or 'nothing'}, not with 00 00 08 {dimensions:02x}")
        sizes = np.frombuffer(file.read(4 * dimensions), dtype=">i4")
        count, there = prod(map(int, sizes)), path.stat().st_size - 4 - 4 * dimensions
        if len(sizes) < dimensions or min(sizes) < 1 or count != there:
            raise ValueError(f"its sizes {'×'.join(map(str, sizes))} are {count:,} values, but there are {there:,}")
        return np.fromfile(file, dtype=np.uint8).reshape(sizes)


def read_idx(folder: Path) -> Arrays:
    """Read the four IDX files in `folder`; raises `InputError` naming a damaged one."""
    arrays: Arrays = {}
    for split, part in (("train", "train"), ("test", "t10k")):
        images, labels = folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"
        for path, key, dimensions in ((images, f"{split}_images", 3), (labels, f"{split}_labels", 1)):
            try:
                arrays[key] = read_idx_file(path, dimensions)
            except (OSError, ValueError) as error:
                raise InputError(f"dataset: {path} is not a whole IDX file ({one_line(error)})") from error
        if len(arrays[f"{split}_images"]) != len(arrays[f"{split}_labels"]):
            raise InputError(f"dataset: {images} and {labels} hold different numbers of examples")
        if (arrays[f"{split}_labels"] > 9).any():
            raise InputError(f"dataset: {labels} holds labels above 9; there are ten classes, 0 to 9")
        arrays[f"{split}_images"] = arrays[f"{split}_images"][:, None]
    return arrays
