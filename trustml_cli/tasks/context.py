"""The context of a run: its settings, its recorder, and training or loading of networks."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trustml_cli.calibration.calibrator import Calibrator, FittedCalibrator
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.defences.defence import Defence
from trustml_cli.models.checkpoint import load_checkpoint
from trustml_cli.models.inference import NO_GRADIENT
from trustml_cli.models.model import Model
from trustml_cli.results.recorder import Recorder
from trustml_cli.system.distribution import own_version
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.files import digest, file_digest
from trustml_cli.system.hardware import Hardware, seeded
from trustml_cli.system.recipe import recipe_of
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.many import Member, fit_many, obstacle
from trustml_cli.training.spec import Spec, TrainingSpec, WrappedSpec, seed_for
from trustml_cli.training.step import CROSS_ENTROPY, TrainingStep
from trustml_cli.training.store import ModelStore, as_built, load_frozen
from trustml_cli.training.trainer import Epoch, Report, Trainer
from trustml_cli.training.wrapper import Wrapper, fit_around

log = logging.getLogger(__name__)

CURVES = 6  # most networks whose training curves share a plot


@dataclass(frozen=True)
class Trained:
    """A frozen network in eval mode on the run's device; `key` is its key in the model store."""

    network: nn.Module
    key: str
    history: list[Epoch]


@dataclass(frozen=True)
class Context:
    """Seed, hardware, model store and recorder of one run, and the calibrator of its networks."""

    seed: int
    hardware: Hardware
    store: ModelStore
    record: Recorder
    calibrator: Calibrator | None = None

    def load(self, dataset: DatasetSource) -> Dataset:
        """Load the data set; decoded images are cached beside the model store."""
        return dataset.load(self.store.root.parent)

    def spec(self, data: Dataset, model: Model, trainer: Trainer, defence: Defence | None = None) -> Spec:
        """The specification of `model` trained on `data` with the run's seed, and with `defence` if given.

        With a calibrator, part of the training images is held out for it. Raises `InputError` unless the defence is
        compatible with all of them.
        """
        if isinstance(self.calibrator, FittedCalibrator):
            check_privacy("calibrator", model, trainer)
            return self.calibrated(self.calibrator, data, model, trainer, defence)
        if defence is None or type(defence) is Defence:
            return TrainingSpec(data=data, model=model, trainer=trainer, seed=self.seed)
        check_defence(defence, data, model, trainer)
        step = defence if isinstance(defence, TrainingStep) else CROSS_ENTROPY
        spec = TrainingSpec(data=data, model=model, trainer=trainer, seed=self.seed, step=step)
        if isinstance(defence, Wrapper):
            check_privacy("defence", model, trainer)
            return WrappedSpec(base=spec, wrapper=defence, data=data, seed=self.seed)
        return spec

    def calibrated(
        self,
        calibrator: Calibrator,
        data: Dataset,
        model: Model,
        trainer: Trainer,
        defence: Defence | None = None,
    ) -> Spec:
        """The specification of a network trained without the images that `calibrator` holds out, and the calibrator.

        Without a fitted calibrator it is that of the network alone. A network that is not trained is used as it is.
        """
        rest, held_out = data.hold_out(calibrator.validation_images, self.seed_for("calibration", 1))
        base = replace(self, calibrator=None).spec(self.unseen(data, rest, model), model, trainer, defence)
        if not isinstance(calibrator, FittedCalibrator):
            return base
        if trainer.private and model.trains:
            self.remark("trainer: its epsilon does not cover the images that calibrators are fitted to")
        return WrappedSpec(base=base, wrapper=calibrator, data=held_out, seed=self.seed)

    def unseen(self, data: Dataset, rest: Dataset, model: Model) -> Dataset:
        """The training data of `model`: `rest`, without what is held out, or `data` for a checkpoint."""
        if model.trains:
            return rest
        self.remark("model.checkpoint: calibrated on training images of the data set, which it may have learned")
        return data

    def remark(self, text: str) -> None:
        """Warn of something about a network, once in a run, and keep it in run.json."""
        told = self.record.facts.get("remarks", [])
        if text not in told:
            log.warning(text)
            self.record.note(remarks=[*told, text])

    def plot_curves(self, stage: str | None = None) -> None:
        """Plot loss and accuracy over the iterations of the network `stage`; None: of the first `CURVES` of the run.

        Not of what is put around a network, which has no batches, nor of networks that history.csv leaves out.
        """
        histories = {
            name: history
            for name, history in self.record.histories.items()
            if all(row.step for row in history) and stage in (None, name)
        }
        if histories:
            from trustml_cli.plots.training import training_curves  # matplotlib, after the results are told

            shown = dict(list(histories.items())[:CURVES])
            self.record.plot("curves", training_curves(shown, self.record.subject))

    def require_gradients(self, data: Dataset, model: Model, key: str) -> None:
        """Raise `InputError`, naming `key`, unless the network has gradients by the images; before it is trained."""
        with prefix_errors("model"), seeded(self.seed):
            network = model.build(input_spec(data))
        if not network.image_gradient:
            raise InputError(f"{key}: {NO_GRADIENT}")

    def seed_for(self, purpose: str, number: int) -> int:
        """The seed of the `number`-th (from 1) further network or random draw for `purpose`."""
        return seed_for(self.seed, purpose, number)

    def train_or_load(self, spec: Spec, stage: str | None = None) -> Trained:
        """The network of `spec`: from its checkpoint, from the model store, or trained now and stored.

        `stage` names it in history.csv where a run trains more than one network.
        """
        if "data" not in self.record.facts:
            data = spec.data
            read = {"source": data.source, "shape": list(data.shape), "fingerprint": data.fingerprint}
            self.record.note(data={**read, "notes": list(data.notes)})
            if data.columns_read:
                self.record.table("columns", [dict(row) for row in data.columns_read])
        trained = self._wrapped(spec, stage) if isinstance(spec, WrappedSpec) else self._trained(spec, stage)
        self.record.note(model_key=trained.key)
        return trained

    def _trained(self, spec: TrainingSpec, stage: str | None) -> Trained:
        spec.check()
        data, model = spec.data, spec.model
        inputs = input_spec(data)
        with prefix_errors("model"), seeded(spec.seed):
            network = model.build(inputs)
            network_facts = as_built(network) if spec.trains else {}
            if model.checkpoint is not None:
                log.info("weights: %s", load_weights(model, network))
        for remark in network.remarks:
            self.remark(f"model: {remark}")
        with prefix_errors("defence"):
            spec.step.check(network)
        if spec.trains:
            with prefix_errors("model"):
                spec.trainer.check_network(network)
            spec.trainer.rehearse(network, data)
        if not spec.trains:
            facts = digest([recipe_of(model), as_built(network)])
            key = f"checkpoint {file_digest(model.checkpoint)[:16]}" if model.checkpoint else f"published {facts[:16]}"
            return Trained(load_frozen(network, network.state_dict(), self.hardware.device), key, [])

        known = {check.name for check in self.record.checks}
        for name, passed, figure in spec.trainer.checks(len(data.train)):
            if name not in known:
                self.record.check(name, passed, figure)
                if not passed:
                    self.remark(f"trainer: this does not hold: {name} ({figure})")
        needed = {name: self.train_or_load(each, stage=name) for name, each in spec.networks.items()}
        if needed and stage is None:
            stage = "defended" if isinstance(spec.step, Defence) else "student"
        first = self.train_or_load(spec.init_from, stage="initial") if spec.init_from else None

        def train(report: Report) -> nn.Module:
            with seeded(spec.seed):
                fresh = model.build(inputs)
                if first is not None:
                    fresh.load_state_dict(first.network.state_dict())
                elif model.checkpoint is not None:
                    load_weights(model, fresh)
                if spec.trainer.takes_steps or spec.trainer.continues:
                    networks = [each.network for each in needed.values()]
                    spec.trainer.fit(fresh, data, self.hardware, report, spec.step, networks, spec.initialized)
                else:
                    spec.trainer.fit(fresh, data, self.hardware, report)
            return fresh

        keys = {name: each.key for name, each in needed.items()}
        recipe = self._recipe(spec, network_facts, first.key if first else None, keys)
        stored = self.store.get_or_train(recipe, train, partial(self.record.history, stage=stage))
        # a network that was just trained is read back from the store, so that a second run gets identical numbers
        return Trained(load_frozen(network, stored.weights, self.hardware.device), stored.key, stored.history)

    def _recipe(
        self, spec: TrainingSpec, network_facts: Mapping[str, Any], init_from: str | None, needs: Mapping[str, str]
    ) -> dict[str, Any]:
        """Everything that determines the weights, hashed to the store key; other networks appear by their keys."""
        data = spec.data
        return {
            "trustml": own_version(),
            "dataset": {"fingerprint": data.fingerprint, "shape": data.shape, "classes": len(data.classes)},
            "model": recipe_of(spec.model),
            "as_built": network_facts,
            "trainer": recipe_of(spec.trainer),
            "step": recipe_of(spec.step),
            "arithmetic": self.hardware.arithmetic,
            "precision": self.hardware.precision.value,
            "compile": self.hardware.compile,
            "seed": spec.seed,
            "init_from": init_from,
            "needs": needs,
        }

    def train_or_load_many(self, specs: Sequence[TrainingSpec], stage: str, shown: bool = True) -> list[Trained]:
        """The networks of all `specs`, trained jointly where that is possible, otherwise one after the other.

        Each network has its own store entry, separate from that of the same network trained alone, from which it
        differs by rounding. If one entry is missing, all networks are trained again, so that the results do not
        depend on the contents of the store. `stage` and a number name them in history.csv, which has no rows of
        networks that are trained jointly and not `shown`.
        """
        stages = [f"{stage} {number}" for number in range(1, len(specs) + 1)]
        alike = len(specs) > 1 and all(spec.plain and spec.trainer == specs[0].trainer for spec in specs)
        members = [self._member(spec) for spec in specs] if alike else []
        reason = obstacle(specs[0].trainer, members, self.hardware) if alike else "they are not trained alike"
        if reason is not None:
            if len(specs) > 1:
                log.info("%d networks (%s) are trained one after the other: %s", len(specs), stage, reason)
            return [self.train_or_load(spec, name) for spec, name in zip(specs, stages, strict=True)]
        trainer = specs[0].trainer
        assert isinstance(trainer, GradientTrainer), type(trainer)

        def train() -> list[tuple[nn.Module, list[Epoch]]]:
            histories = fit_many(trainer, members, self.hardware)
            return [(member.network, history) for member, history in zip(members, histories, strict=True)]

        recipes = [
            {**self._recipe(spec, as_built(member.network), None, {}), "together": len(specs)}
            for spec, member in zip(specs, members, strict=True)
        ]
        stored = self.store.fetch_many(recipes, train)
        for each, name in zip(stored, stages, strict=True):
            for epoch in each.history if shown else ():
                self.record.history(epoch, stage=name)
        device = self.hardware.device
        return [
            Trained(load_frozen(member.network, each.weights, device), each.key, each.history)
            for member, each in zip(members, stored, strict=True)
        ]

    def _member(self, spec: TrainingSpec) -> Member:
        """The untrained network of `spec`, its data, and its random generator."""
        random = torch.Generator()
        with prefix_errors("model"), seeded(spec.seed):
            network = spec.model.build(input_spec(spec.data))
            random.set_state(torch.get_rng_state())
        return Member(network, spec.data, random)

    def _wrapped(self, spec: WrappedSpec, stage: str | None) -> Trained:
        """The base network with its wrapper, which has its own store entry; the history is that of the base."""
        stage = stage or "classifier"
        base = self.train_or_load(spec.base, stage)
        shape, wrapper = spec.data.shape, spec.wrapper

        def train(report: Report) -> nn.Module:
            return fit_around(wrapper, base.network, spec.data, spec.seed, self.hardware, report)

        recipe = {
            "trustml": own_version(),
            "dataset": {"fingerprint": spec.data.fingerprint, "shape": shape},
            "around": {"key": base.key, **as_built(base.network)},  # the same checkpoint can fit several models
            "wrapper": recipe_of(wrapper),
            "arithmetic": self.hardware.arithmetic,
            "seed": spec.seed,
        }
        stored = self.store.get_or_train(recipe, train, partial(self.record.history, stage=f"{wrapper.place} {stage}"))
        with seeded(spec.seed):
            wrapped = wrapper.around(base.network, shape)
        load_frozen(wrapper.part(wrapped), stored.weights, self.hardware.device)
        return Trained(wrapped.eval(), stored.key, base.history)


def check_defence(defence: Defence, data: Dataset, model: Model, trainer: Trainer) -> None:
    """Raise `InputError` unless the defence is compatible with `model`, `trainer` and `data`."""
    if isinstance(defence, TrainingStep) and not trainer.takes_steps:
        raise InputError("defence: goes with training by gradients; use trainer=default, or defence=none")
    if isinstance(defence, TrainingStep) and not model.trains:
        raise InputError(
            "defence: is a way to train, and model.checkpoint is not trained; continue from it with model.train=true, "
            "or leave one of them"
        )
    if defence.needs_images and len(data.shape) != 3:
        raise InputError("defence: needs images, and the data set holds none; use defence=none")


def check_privacy(key: str, model: Model, trainer: Trainer) -> None:
    """Raise `InputError` where the choice of `key` would learn from examples whose privacy `trainer` promises."""
    if trainer.private and model.trains:
        raise InputError(f"{key}: is fitted to private examples without noise, and dp_sgd promises it; use {key}=none")


def load_weights(model: Model, network: nn.Sequential) -> str:
    """Load the model's checkpoint into its network; returns how the file was read."""
    assert model.checkpoint is not None
    return load_checkpoint(network, model.checkpoint, model.checkpoint_key, model.checkpoint_prefix)


def model_store(cache_dir: Path) -> ModelStore:
    """The model store in `cache_dir`/models."""
    return ModelStore(cache_dir / "models")
