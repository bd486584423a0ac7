"""The least that a task can be given: a small network and a trainer for `tiny_data`."""

from dataclasses import dataclass
from pathlib import Path

from tests.configs import choice
from tests.helpers import FRESH
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.models.dense import Mlp
from trustml_cli.models.model import Normalization
from trustml_cli.training.gradient import GradientTrainer

MODEL = Mlp(normalization=Normalization.dataset, **FRESH, hidden=[8], dropout=0.0)
TRAINER: GradientTrainer = build(choice("trainer", "default", epochs=4, batch_size=16), "trainer")


@dataclass(frozen=True, kw_only=True)
class Given(DatasetSource):
    """A data set that is there already."""

    data: Dataset

    def read(self, cache_dir: Path) -> Dataset:
        return self.data
