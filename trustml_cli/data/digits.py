"""The default data set: the handwritten digits included in scikit-learn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.data.decoded import Arrays, decoded
from trustml_cli.system.files import digest
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Digits(DatasetSource):
    """1,797 handwritten digits, 1×8×8 with 17 grey levels (Alpaydin and Kaynak 1998, UCI Optical Recognition).

    `test_fraction` of each class is held out for testing, with a fixed seed.
    """

    test_fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "test_fraction", at_least=0.01, at_most=0.9)

    def read(self, cache_dir: Path) -> Dataset:
        # cached, because importing scikit-learn and reading its text file takes longer than many attacks
        arrays, _ = decoded(cache_dir, "digits", {"test_fraction": self.test_fraction}, self.divided)
        train, test = (
            InMemory(torch.from_numpy(arrays[f"{name}_images"]), torch.from_numpy(arrays[f"{name}_labels"]))
            for name in ("train", "test")
        )
        return Dataset(
            train=train,
            test=test,
            classes=tuple("0123456789"),
            fingerprint=digest(["digits", self.test_fraction]),
            source="scikit-learn's own copy",
        )

    def divided(self) -> Arrays:
        """Images uint8 [N, 1, 8, 8] and labels int64 [N] of both splits."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        images, labels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None], bunch.target
        train, test = train_test_split(
            np.arange(len(labels)), test_size=self.test_fraction, stratify=labels, random_state=0
        )
        both = {"train": train, "test": test}
        return {f"{name}_images": images[order] for name, order in both.items()} | {
            f"{name}_labels": labels[order] for name, order in both.items()
        }
