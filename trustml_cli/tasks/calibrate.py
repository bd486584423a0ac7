"""task=calibrate: how far a classifier's softmax outputs are probabilities, with and without calibration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from trustml_cli.attacks.attack import Attack
from trustml_cli.calibration.calibrator import Calibrator, FittedCalibrator
from trustml_cli.calibration.temperature import DividedByTemperature
from trustml_cli.config.instantiate import chosen
from trustml_cli.corruptions.corruption import Corruption
from trustml_cli.data.dataset import DatasetSource
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.calibration import calibration_columns
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, by_image
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.plots.calibration import calibration_under_perturbation, reliability_diagrams
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import Hardware
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.perturbed import CLEAN, PerturbedAnswers, UnderPerturbation
from trustml_cli.training.predict import Answers
from trustml_cli.training.spec import Spec, WrappedSpec
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Calibrate(UnderPerturbation):
    """Measure calibration errors in `bins` bins with each `calibrator`, on clean images and under perturbations.

    All calibrators are fitted to the same held-out training images, behind the same network. Where none is fitted,
    nothing is held out. Attacks are made on the network without a calibrator.
    """

    columns: ClassVar[Columns] = (
        *conditions("calibrator", "perturbation", "strength"),
        *logged(higher("accuracy")),
        *logged(lower("nll")),
        *lower("brier"),
        *headline(lower("ece")),
        *lower("ece_adaptive", "ece_classwise"),
        *logged(neither("ece_null")),
        *sometimes(neither("temperature")),
        *neither("mean_confidence"),
    )

    calibrator: list[str]
    bins: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "bins", at_least=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        calibrators: Mapping[str, Calibrator],
        attack: Attack,
        corruption: Mapping[str, Corruption],
        defence: Defence,
    ) -> None:
        """Write one row for each calibrator and perturbation, then the plots."""
        asked = chosen(self.calibrator, calibrators, "task.calibrator")
        if len({each.validation_images for each in asked.values()}) > 1:
            raise InputError("calibrators: must have the same validation_images, to be compared behind one network")
        data = context.load(dataset)
        perturbations = self.perturbations(context, data, model, attack, corruption, defence)
        if any(isinstance(each, FittedCalibrator) for each in asked.values()):
            specs = {name: context.calibrated(each, data, model, trainer, defence) for name, each in asked.items()}
        else:  # nothing has to be held out
            specs = {name: context.spec(data, model, trainer, defence) for name in asked}
        one = next(iter(specs.values()))
        network = context.train_or_load(one.base if isinstance(one, WrappedSpec) else one, "classifier").network
        layers = {name: calibration_of(context, spec) for name, spec in specs.items()}

        clean: dict[str, Answers] = {}
        shown = next((name for name, layer in layers.items() if not isinstance(layer, nn.Identity)), next(iter(layers)))
        strongest: dict[str, PerturbedAnswers] = {}
        for each in self.answers(context, network, data, perturbations):
            for name, layer in layers.items():
                answers = calibrated(layer, each.answers, context.hardware)
                condition = {"calibrator": name, **each.condition}
                values = row(answers, context.seed, self.bins)
                context.record.metrics(condition, **values, temperature=temperature(layer))
                if each.perturbation == CLEAN:
                    clean[name] = answers
                    check_calibration(context, name, each.answers, answers, layer)
                elif name == shown:
                    strongest[each.perturbation] = replace(each, answers=answers)
        self.plot(context, clean, shown, list(strongest.values()))

    def plot(
        self, context: Context, clean: Mapping[str, Answers], calibrator: str, strongest: list[PerturbedAnswers]
    ) -> None:
        """Plot reliability diagrams on clean images, and of one calibrator under the strongest perturbations."""
        subject = context.record.subject
        context.record.plot("reliability", reliability_diagrams(clean, self.bins, f"{subject}, clean"))
        if strongest:
            named = {f"{each.perturbation} at {each.strength:g}": each.answers for each in strongest}
            figure = reliability_diagrams(named, self.bins, f"{subject}, calibrator {calibrator}")
            context.record.plot("reliability_perturbed", figure)
            context.record.plot("perturbed", calibration_under_perturbation(context.record.rows, subject))


def calibration_of(context: Context, spec: Spec) -> nn.Module:
    """The fitted calibration behind the network of `spec`; the identity where there is none."""
    if not isinstance(spec, WrappedSpec):
        return nn.Identity()
    wrapped = context.train_or_load(spec).network
    assert isinstance(wrapped, nn.Sequential), type(wrapped)
    return spec.wrapper.part(wrapped)


@torch.no_grad()
def calibrated(layer: nn.Module, answers: Answers, hardware: Hardware) -> Answers:
    """The network's answers after the calibration."""
    return Answers(layer(answers.logits.to(hardware.device)).cpu(), answers.labels)


def temperature(layer: nn.Module) -> float | None:
    """The number that the calibration divides the logits by; None where it does something else."""
    if isinstance(layer, DividedByTemperature) and layer.temperature is not None:
        return float(layer.temperature)
    return 1.0 if isinstance(layer, nn.Identity) else None


def row(answers: Answers, seed: int, bins: int) -> dict[str, object]:
    """The measured values of one row, with their intervals."""
    return {
        **by_image("accuracy", answers.correct),
        **calibration_columns(answers.logits, answers.labels, seed, bins),
        **average("mean_confidence", answers.confidence),
    }


def check_calibration(context: Context, name: str, before: Answers, after: Answers, layer: nn.Module) -> None:
    """Check that a temperature changes no answer, and that the ECE is one that a perfect model may show."""
    if isinstance(layer, nn.Identity):
        return
    changed = int((before.predicted != after.predicted).sum())
    keeps = changed == 0 if isinstance(layer, DividedByTemperature) else None
    context.record.check(f"{name} changes no answer", keeps, f"{changed:,} of {len(after.labels):,} change")
    values = context.record.rows[-1]
    low, high = values["ece_null_ci_low"], values["ece_null_ci_high"]
    least, most = in_percent(low).removesuffix(" %"), in_percent(high)
    figure = f"{in_percent(values['ece'])}; 95 % of perfect models show {least} to {most}, n = {values['ece_n']:,}"
    context.record.check(f"the ECE of {name} is one of a perfect model", values["ece"] <= high, figure)
