"""What every handler is given, and how it comes by a trained network."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split, drawn
from trustml_cli.defences.defence import Defence, InFront, RobustTraining
from trustml_cli.models.checkpoint import load_checkpoint
from trustml_cli.models.model import Inputs, Model
from trustml_cli.results.recorder import Recorder
from trustml_cli.system.errors import InputError, naming
from trustml_cli.system.files import file_digest
from trustml_cli.system.hardware import Hardware, own_randomness
from trustml_cli.system.recipe import made_of
from trustml_cli.training.predict import predict
from trustml_cli.training.store import ModelStore, as_built, resumed
from trustml_cli.training.trainer import Epoch, Report, Trainer, finite

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
        defence: Defence | None = None,
    ) -> Trained:
        """`model` trained on `data`: from its checkpoint, from the store, or trained now and kept there.

        `made_with` names whatever else makes it what it is (a poison); it is part of the key, and so is the defence
        that it is trained with. `stage` names the network in history.csv where a run trains more than one.
        """
        if "data" not in self.record.facts:
            told = {"source": data.source, "fingerprint": data.fingerprint, "notes": list(data.notes)}
            self.record.note(data=told)
        if defence is not None:
            check_defence(defence, data, model, trainer)
        if isinstance(defence, InFront):
            stage = stage or "classifier"
            trained = self.trained(data, model, trainer, made_with, stage)
            return self.guarded(data, trained, defence, stage=f"in front of {stage}")
        inputs = describe(data)
        robust = defence if isinstance(defence, RobustTraining) else None
        with naming("model"), own_randomness(self.seed):
            network = model.build(inputs)
            if model.checkpoint is not None:
                load_checkpoint(network, model.checkpoint)
                key = f"checkpoint {file_digest(model.checkpoint)[:16]}"
                self.record.note(model_key=key)
                return Trained(resumed(network, network.state_dict(), self.hardware.device), key, [])

        static = []
        for number in range(1, robust.static_networks + 1 if robust else 1):
            other = replace(self, seed=self.seed + number)
            static.append(other.trained(data, model, trainer, made_with, stage=f"static {number}").network)
            stage = stage or "defended"

        def train(report: Report) -> nn.Module:
            with own_randomness(self.seed):
                fresh = model.build(inputs)
                if robust is not None and trainer.takes_steps:
                    trainer.fit(fresh, data, self.hardware, report, robust, static)
                else:
                    trainer.fit(fresh, data, self.hardware, report)
            return fresh

        recipe = {
            "trustml": version("trustml"),
            "dataset": {"fingerprint": data.fingerprint, "shape": data.shape, "classes": len(data.classes)},
            "model": made_of(model),
            "as_built": as_built(network),
            "trainer": made_of(trainer),
            "precision": self.hardware.precision.value,
            **({"compile": True} if self.hardware.compile else {}),
            "seed": self.seed,
            **(made_with or {}),
            **({"defence": made_of(robust)} if robust else {}),
        }
        stored = self.store.fetch(recipe, train, partial(self.record.history, stage=stage))
        self.record.note(model_key=stored.key)
        # what was trained just now is read back like any other, so that a second run gets the very same numbers
        return Trained(resumed(network, stored.weights, self.hardware.device), stored.key, stored.history)

    def guarded(self, data: Dataset, trained: Trained, defence: InFront, stage: str) -> Trained:
        """The classifier behind what `defence` puts in front of it, which is kept in the store by itself.

        The history is that of the classifier.
        """

        def train(report: Report) -> nn.Module:
            with own_randomness(self.seed):
                split = drawn(data.train, defence.learns_from, self.seed)
                x, _ = next(batches(split, len(split), self.hardware.device))
                both = defence.around(trained.network, data.shape).to(self.hardware.device)
                start = perf_counter()
                for number, (lr, loss, agreed) in enumerate(defence.learn(both[0], trained.network, x), start=1):
                    seconds = perf_counter() - start
                    told = predict(both, data.test, self.hardware)
                    report(
                        Epoch(
                            epoch=number,
                            train_loss=finite(loss),
                            train_accuracy=agreed,
                            test_loss=finite(told.loss),
                            test_accuracy=told.accuracy,
                            lr=lr,
                            seconds=seconds,
                            images=len(x),
                        )
                    )
                    start = perf_counter()
            return both[0]

        recipe = {
            "trustml": version("trustml"),
            "dataset": {"fingerprint": data.fingerprint, "shape": data.shape},
            "in_front_of": {"key": trained.key, **as_built(trained.network)},  # one file of weights fits many models
            "defence": made_of(defence),
            "seed": self.seed,
        }
        stored = self.store.fetch(recipe, train, partial(self.record.history, stage=stage))
        self.record.note(model_key=stored.key)
        with own_randomness(self.seed):
            both = defence.around(trained.network, data.shape)
        resumed(both[0], stored.weights, self.hardware.device)
        return Trained(both.eval(), stored.key, trained.history)


def check_defence(defence: Defence, data: Dataset, model: Model, trainer: Trainer) -> None:
    """Raise `InputError` unless the defence goes with `model`, `trainer` and `data`."""
    if isinstance(defence, RobustTraining) and not trainer.takes_steps:
        raise InputError("defence: goes with training by gradients; take trainer=default, or defence=none")
    if isinstance(defence, RobustTraining) and model.checkpoint is not None:
        raise InputError("defence: is a way to train, and model.checkpoint trains nothing; leave one of them")
    if type(defence) is not Defence and len(data.shape) != 3:
        raise InputError("defence: needs images, and the data set holds none; take defence=none")


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
