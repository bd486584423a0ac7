"""The embedded default: handwritten digits that come with scikit-learn."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.files import digest


@dataclass(frozen=True, kw_only=True)
class Digits(DatasetSource):
    """1,797 handwritten digits, 1×8×8 with 17 grey levels (Alpaydin and Kaynak 1998, UCI Optical Recognition).

    `test_fraction` of each class is held out for testing, always the same images.
    """

    test_fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.01 <= self.test_fraction <= 0.9:
            raise ValueError(f"test_fraction: must be between 0.01 and 0.9, got {self.test_fraction}")

    def read(self) -> Dataset:
        from sklearn.model_selection import train_test_split

        bunch = bundled()
        levels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
        images, labels = torch.from_numpy(levels), torch.from_numpy(bunch.target)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=self.test_fraction, stratify=bunch.target, random_state=0
        )
        whole = InMemory(images, labels)
        return Dataset(
            train=whole.subset(torch.from_numpy(train)),
            test=whole.subset(torch.from_numpy(test)),
            classes=tuple(str(name) for name in bunch.target_names),
            fingerprint=digest(["digits", self.test_fraction]),
            source="scikit-learn's own copy",
        )


@cache
def bundled() -> Any:
    """scikit-learn's copy; it is text, and every job of a sweep would read it anew."""
    from sklearn.datasets import load_digits

    return load_digits()
