"""CIFAR-10, in torchvision's layout, as parquet files, or downloaded."""

from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.data.parquet import Parquet, read_parquet
from trustml_cli.system.errors import InputError, one_line
from trustml_cli.system.files import stamp

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LARGEST_BATCH = 32_000_000  # bytes
BATCH_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@dataclass(frozen=True, kw_only=True)
class Cifar10(DatasetSource):
    """50,000 + 10,000 photographs in ten classes, 3×32×32 (Krizhevsky 2009).

    Read from `data_dir/cifar-10-batches-py` (torchvision's layout, lossless), else from
    `data_dir/cifar10/{train,test}.parquet` (Hugging Face layout), else downloaded by torchvision.
    """

    data_dir: Path

    def read(self, cache_dir: Path) -> Dataset:
        batches = self.data_dir / "cifar-10-batches-py"
        parquet = {split: self.data_dir / "cifar10" / f"{split}.parquet" for split in ("train", "test")}
        if not has_batches(batches) and all(path.is_file() for path in parquet.values()):
            source = Parquet(
                root=None, train=[parquet["train"]], test=[parquet["test"]], image=["img"], label="label", size=None,
                channels=3, background=[1.0], limit=None,
            )  # fmt: skip
            return read_parquet(source, cache_dir, name="cifar10", classes=CLASSES)
        if not has_batches(batches):
            self.download(parquet["train"])
        origin = [stamp(batches / name) for name in BATCH_FILES]
        arrays, fingerprint = decoded(cache_dir, "cifar10", origin, self.read_batches)
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return Dataset(
            train=InMemory(tensors["train_images"], tensors["train_labels"]),
            test=InMemory(tensors["test_images"], tensors["test_labels"]),
            classes=CLASSES,
            fingerprint=fingerprint,
            source=str(batches),
        )

    def download(self, parquet: Path) -> None:
        """Download and unpack the archive into `data_dir` with torchvision; raises `InputError` where that fails."""
        from torchvision.datasets import CIFAR10

        try:
            CIFAR10(self.data_dir, download=True)
        except (URLError, RuntimeError, OSError) as error:
            raise InputError(
                f"dataset: CIFAR-10 is not in {self.data_dir} and could not be downloaded ({one_line(error)}); put the "
                f"folder cifar-10-batches-py or the files {parquet} and test.parquet there, or set data_dir (or "
                "TRUSTML_DATA_DIR)"
            ) from error

    def read_batches(self) -> Arrays:
        """Read the original pickled batches; torchvision verifies their published checksums before unpickling.

        Raises `InputError` where a file is damaged.
        """
        import numpy as np
        from torchvision.datasets import CIFAR10

        for name in BATCH_FILES:
            path = self.data_dir / "cifar-10-batches-py" / name
            if (size := path.stat().st_size) > LARGEST_BATCH:  # torchvision reads the whole file for its checksum
                raise InputError(
                    f"dataset: {path} is damaged: it holds {size:,} bytes, and the published one 31 million"
                )
        arrays: Arrays = {}
        for split in ("train", "test"):
            try:
                content = CIFAR10(self.data_dir, train=split == "train")
            except RuntimeError as error:
                raise InputError(f"dataset: {self.data_dir / 'cifar-10-batches-py'} is damaged ({error})") from error
            arrays[f"{split}_images"] = np.ascontiguousarray(content.data.transpose(0, 3, 1, 2))
            arrays[f"{split}_labels"] = np.asarray(content.targets, dtype=np.int64)
        return arrays


def has_batches(folder: Path) -> bool:
    """Whether `folder` has all batch files of torchvision's layout."""
    return all((folder / name).is_file() for name in BATCH_FILES)
