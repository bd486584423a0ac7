"""What every handler is given, and how it comes by a trained network."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.errors import naming
from trustml_cli.files import file_digest
from trustml_cli.hardware import Hardware, own_randomness
from trustml_cli.models.checkpoint import load_checkpoint
from trustml_cli.models.model import Inputs, Model
from trustml_cli.record import Recorder
from trustml_cli.store import ModelStore, resumed
from trustml_cli.training.trainer import Epoch, Report, Trainer

SAMPLE = 50_000  # training images that mean and deviation are taken from


@dataclass(frozen=True)
class Trained:
    """A network that is ready to be asked, on the run's device; `key` finds it in the store."""

    network: nn.Module
    key: str
    history: list[Epoch]


@dataclass(frozen=True)
class Context:
    """The run that a handler works for."""

    seed: int
    hardware: Hardware
    store: ModelStore
    record: Recorder

    def trained(
        self,
        data: Dataset,
        model: Model,
        trainer: Trainer,
        made_with: Mapping[str, Any] | None = None,
        stage: str | None = None,
    ) -> Trained:
        """`model` trained on `data`: from its checkpoint, from the store, or trained now and kept there.

        `made_with` names whatever else makes it what it is (poison, defence); it is part of the key. `stage` names
        the network in history.csv where a run trains more than one.
        """
        inputs = describe(data)
        with naming("model"), own_randomness(self.seed):
            network = model.build(inputs)
            if model.checkpoint is not None:
                load_checkpoint(network, model.checkpoint)
                key = f"checkpoint {file_digest(model.checkpoint)[:16]}"
                self.record.note(model_key=key)
                return Trained(resumed(network, network.state_dict(), self.hardware.device), key, [])

        def train(report: Report) -> nn.Module:
            with own_randomness(self.seed):
                fresh = model.build(inputs)
                trainer.fit(fresh, data, self.hardware, report)
            return fresh

        recipe = {
            "trustml": version("trustml"),
            "dataset": {"fingerprint": data.fingerprint, "shape": data.shape, "classes": len(data.classes)},
            "model": {"is": type(model).__qualname__, **asdict(model), **model.identity()},
            "trainer": {"is": type(trainer).__qualname__, **asdict(trainer)},
            "precision": self.hardware.precision.value,
            "seed": self.seed,
            **(made_with or {}),
        }
        stored = self.store.fetch(recipe, train, partial(self.record.history, stage=stage))
        self.record.note(model_key=stored.key)
        # what was trained just now is read back like any other, so that a second run gets the very same numbers
        return Trained(resumed(network, stored.weights, self.hardware.device), stored.key, stored.history)


def describe(data: Dataset) -> Inputs:
    """What a network for `data` is built for."""
    mean, std = channel_statistics(data.train)
    return Inputs(data.shape, len(data.classes), mean, std)


def channel_statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over up to `SAMPLE` random training images, in pixel units."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    count, total, squares = 0, torch.zeros(train.shape[0]).double(), torch.zeros(train.shape[0]).double()
    for x, _ in batches(train, 1000, torch.device("cpu"), order.sort().values):
        by_channel = x.transpose(0, 1).flatten(1).double()
        count += by_channel.shape[1]
        total += by_channel.sum(1)
        squares += by_channel.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 1e-6, std, 1.0)  # a channel that never changes stays as it is
    return tuple(mean.tolist()), tuple(std.tolist())


def model_store(cache_dir: Path) -> ModelStore:
    """The store below `cache_dir`."""
    return ModelStore(cache_dir / "models")
