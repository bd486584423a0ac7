"""task=rectify: a rectifying network in front of a frozen classifier, and a detector of perturbed images.

Akhtar, Liu and Mian 2018, arXiv 1711.05929.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from trustml_cli.attacks.attack import Access, Attack
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, Split, random_subset
from trustml_cli.data.unseen import split_validation
from trustml_cli.defences.defence import Defence
from trustml_cli.defences.detector import FittedDetector, PerturbationDetector
from trustml_cli.defences.measure import RectifiedResult, ask_rectified, concatenate
from trustml_cli.defences.rectify import Rectifier, RectifyingNetwork, perturbed
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, proportion, with_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.ood.measure import DetectionResult, evaluate
from trustml_cli.ood.separation import separation_intervals
from trustml_cli.plots.ood import roc_curves
from trustml_cli.plots.rectify import accuracies, rectified_images
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context, check_defence
from trustml_cli.tasks.detection import check_threshold
from trustml_cli.tasks.robustness import check_epsilons, check_gradient_access, fit_attack
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer

CLEAN = ("none", "none")
POINT = 0.01  # tolerance when two accuracies are compared


@dataclass(frozen=True, kw_only=True)
class Rectify:
    """Train a classifier, a rectifier for it, and a detector; evaluate them on images perturbed by each of `attacks`.

    `images` random test images (None: all) are attacked at `epsilon` (pixel units) in `folds` parts. For each part
    the attack is fitted anew, with another seed than the rectifier's: to the bare classifier, and adaptively to the
    rectified one. The detector is a support vector machine with parameter `C`, fitted to `detector_images` training
    images with the perturbations that the rectifier was trained on. It accepts the share `quantile` of clean
    validation images; these are `validation_fraction` of the training images, held out before training. Each figure
    shows `examples` images.
    """

    columns: ClassVar[Columns] = (
        *conditions("perturbation", "made_on", "norm", "epsilon"),
        *logged(higher("accuracy")),
        *headline(higher("rectified_accuracy")),
        *logged(higher("combined_accuracy")),
        *lower("fooling_rate", "rectified_fooling_rate", "combined_fooling_rate"),
        *logged(neither("flagged_rate")),
        *neither("threshold"),
        *sometimes((*higher("auroc"), *neither("nearest_cosine"))),
    )

    epsilon: float
    images: int | None
    folds: int
    C: float
    detector_images: int
    quantile: float
    validation_fraction: float
    examples: int

    def __post_init__(self) -> None:
        check_epsilons([self.epsilon])
        require(self, "images", "folds", "detector_images", "examples", at_least=1)
        require(self, "quantile", "validation_fraction", above=0, below=1)
        PerturbationDetector(C=self.C)  # checks the range of C

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        defence: Defence,
        attacks: Mapping[str, Attack],
    ) -> None:
        """Write a row for clean images and one for each attack and network that it was made on; then the plots."""
        if not isinstance(defence, Rectifier):
            raise InputError("defence: this task is for rectify; use task=robust_train or task=attack for others")
        whole = context.load(dataset)
        check_defence(defence, whole, model, trainer)
        data, validation = split_validation(whole, self.validation_fraction, context.seed)
        if not len(data.train):
            raise InputError("task.validation_fraction: leaves nothing to train on; lower it")
        attacks = resolve_targets(context, attacks, data, model, defence)

        guarded = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        assert isinstance(guarded, nn.Sequential), type(guarded)
        machine = self.detector(context, guarded, defence, data.train)
        test = data.test if self.images is None else random_subset(data.test, self.images, context.seed)
        aside = self.show(context, guarded, machine, data, validation)
        shown = {CLEAN: self.show(context, guarded, machine, data, test)}
        for name, each in attacks.items():
            for made_on, network in (("classifier", guarded[1]), ("rectified", guarded)):
                if made_on == "classifier" or each.access is not Access.none:
                    shown[name, made_on] = self.show(context, guarded, machine, data, test, each, network)
        clean = shown[CLEAN]
        judged = {key: evaluate(aside.score, clean.score, one.score, self.quantile) for key, one in shown.items()}

        for (name, made_on), one in shown.items():
            condition = {"perturbation": name, "made_on": made_on, "norm": "none", "epsilon": 0.0}
            if name != CLEAN[0]:
                condition |= {"norm": attacks[name].norm.value, "epsilon": self.epsilon}
            values = row(one, judged[name, made_on], name == CLEAN[0], context.seed)
            context.record.metrics(condition, **values)
        passed, count = judged[CLEAN].inliers_passed, len(judged[CLEAN].inliers)
        check_threshold(context, "the detector", passed, count, len(validation), self.quantile)
        check_known(context, shown)

        choices = context.record.choices
        subject = f"rectify in front of {choices['model']} on {choices['dataset']}"
        threshold = judged[CLEAN].threshold
        context.record.plot("accuracy", accuracies(shown, threshold, f"{subject}, epsilon {self.epsilon:.3g}"))
        del judged[CLEAN]
        named = {f"{name} on {made_on}": one for (name, made_on), one in judged.items()}
        context.record.plot("roc", roc_curves({"": named}, subject, ("clean images", "perturbed images")))
        title = f"{subject}, epsilon {self.epsilon:.3g}"
        figure = rectified_images(shown, guarded, threshold, data.classes, self.examples, title)
        context.record.plot("examples", figure)

    def detector(self, context: Context, guarded: nn.Sequential, defence: Rectifier, train: Split) -> FittedDetector:
        """The detector, fitted to the rectifier's changes (output − input) of clean and perturbed training images."""
        own, rectifier = random_subset(train, self.detector_images, context.seed), guarded[0]
        assert isinstance(rectifier, RectifyingNetwork), type(rectifier)
        changes: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        with seeded(context.seed), torch.no_grad():
            for x, _ in batches(own, BATCH, context.hardware.device):
                noisy = perturbed(x, rectifier.perturbations, defence.epsilon, defence.norm)
                for kept, images in zip(changes, (x, noisy), strict=True):
                    kept.append(rectifier(images) - images)
        return PerturbationDetector(C=self.C).fit(*(torch.cat(parts) for parts in changes))

    def show(
        self,
        context: Context,
        guarded: nn.Sequential,
        machine: FittedDetector,
        data: Dataset,
        images: Split,
        attack: Attack | None = None,
        network: nn.Module | None = None,
    ) -> RectifiedResult:
        """Predictions for `images` in a random order: unchanged, or each part with `attack` fitted to `network`."""
        order, parts = torch.randperm(len(images), generator=torch.Generator().manual_seed(context.seed)), []
        for number, rows in enumerate(torch.tensor_split(order, self.folds), start=1):
            own = replace(context, seed=context.seed_for("part", number))
            fitted = None if attack is None or network is None else fit_attack(own, attack, network, data)[0]
            with seeded(own.seed):
                for x, y in batches(images, BATCH, context.hardware.device, rows):
                    x_adv = x if fitted is None or network is None else fitted(network, x, y, self.epsilon)
                    parts.append(ask_rectified(guarded, machine, x, x_adv, y))
        return concatenate(parts)


def resolve_targets(
    context: Context, attacks: Mapping[str, Attack], data: Dataset, model: Model, defence: Rectifier
) -> dict[str, Attack]:
    """The attacks with their targets as class numbers; raises `InputError` naming an attack that does not fit."""
    with prefix_errors("model"), seeded(context.seed):
        fresh = defence.around(model.build(input_spec(data)), data.shape)
    ready = {}
    for name, each in attacks.items():
        with prefix_errors(f"attacks.{name}.target"):
            target = None if each.target is None else data.class_number(each.target)
        ready[name] = replace(each, target=target)
        with prefix_errors(f"attacks.{name}"):
            ready[name].check(fresh, data.shape)
            check_gradient_access(ready[name], fresh, data.shape)
    return ready


def row(shown: RectifiedResult, judged: DetectionResult, clean: bool, seed: int) -> dict[str, Any]:
    """The values of one row. Fooled: the prediction differs from the classifier's for the clean image."""
    n, said = len(shown.labels), {"": shown.bare, "rectified_": shown.rectified}
    said["combined_"] = shown.combined(judged.threshold)
    values: dict[str, Any] = {}
    for name, answers in said.items():
        values |= proportion(f"{name}accuracy", int((answers == shown.labels).sum()), n)
    for name, answers in said.items():
        values |= proportion(f"{name}fooling_rate", int((answers != shown.before).sum()), n)
    values |= {**proportion("flagged_rate", n - judged.outliers_passed, n), "threshold": judged.threshold}
    if clean:
        return values
    ends = separation_intervals(judged.inliers, judged.outliers, seed)["auroc"]
    values |= with_interval("auroc", judged.separation.auroc, ends, len(judged.inliers) + len(judged.outliers))
    return values | average("nearest_cosine", shown.likeness)


def check_known(context: Context, shown: Mapping[tuple[str, str], RectifiedResult]) -> None:
    """Check for each attack that an adaptive one does not lower the rectified accuracy by more than `POINT`."""
    for name, made_on in shown:
        if made_on == "rectified":
            unknown, known = (
                (one.rectified == one.labels).double().mean().item()
                for one in (shown[name, "classifier"], shown[name, made_on])
            )
            figure = f"rectified accuracy {in_percent(known)}, {in_percent(unknown)} where the rectifier is not known"
            context.record.check(f"{name} gains nothing from knowing the rectifier", known >= unknown - POINT, figure)
