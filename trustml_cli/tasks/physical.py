"""task=physical: an adversarial pattern that is robust to transformations of the scene."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, Split, random_subset
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither
from trustml_cli.metrics.intervals import average, by_image, proportion
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.models.model import Model
from trustml_cli.physical.attack import PhysicalAttack
from trustml_cli.physical.transformations import Ranges
from trustml_cli.plots.physical import PatchedResult, pattern_picture, success_bars, worn_images
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer

PATTERN, NOISE, BARE = "pattern", "noise", "bare"


@dataclass(frozen=True, kw_only=True)
class MeasurePhysicalAttack:
    """Fit a pattern on training images not of its target class, and test it on `images` test images of that kind.

    Without a target, the class is chosen that training images are easiest to be taken for.
    """

    columns: ClassVar[Columns] = (
        *conditions("physical", "target", "transformation"),
        *headline(lower("success_rate")),
        *logged(neither("noise_success_rate", "bare_success_rate")),
        *higher("accuracy", "bare_accuracy"),
        *lower("mean_target_confidence"),
    )

    images: int
    examples: int

    def __post_init__(self) -> None:
        require(self, "images", "examples", at_least=1)

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer, physical: PhysicalAttack
    ) -> None:
        """Write a row for each single transformation, for none and for all together."""
        data = context.load(dataset)
        if len(data.shape) != 3:
            raise InputError("dataset: holds no images; a pattern is put into images only")
        with prefix_errors("physical"):
            physical.pattern_shape(data.shape)
        if physical.target is not None:
            with prefix_errors("physical.target"):
                physical = replace(physical, target=data.class_number(physical.target))
            for split in (data.train, data.test):
                of_others(split, physical.goal)
        context.require_gradients(data, model, "physical")
        network = context.train_or_load(context.spec(data, model, trainer)).network

        device = context.hardware.device
        if physical.target is None:
            physical = replace(physical, target=self.best_target(context, data, network, physical))
        target = physical.goal
        train, test = (of_others(split, target) for split in (data.train, data.test))
        own = random_subset(train, physical.training_images, context.seed)
        x, _ = next(batches(own, len(own), device))
        steps = physical.restarts * physical.steps
        with seeded(context.seed), Progress[None](total=steps, desc="learning the pattern") as bar:
            pattern = physical.learn(network, x, bar.update)
        tried = random_subset(test, self.images, context.seed)
        worn = []
        for name, ranges in transformations(physical).items():
            with seeded(context.seed):
                worn.append(tried_on(network, physical, pattern, name, ranges, tried, self.examples, device))
            self.row(context, data, worn[-1], target)
        context.record.artifact("pattern", {PATTERN: pattern})
        rate = {scene: worn[-1].success(scene, target).double().mean().item() for scene in (PATTERN, NOISE, BARE)}
        figure = f"{in_percent(rate[PATTERN])} against {in_percent(rate[NOISE])}"
        context.record.check("the pattern fools more than noise in its place", rate[PATTERN] > rate[NOISE], figure)
        choices = context.record.choices
        subject = f"{choices['physical']} for {data.classes[target]!r}: {choices['model']} on {choices['dataset']}"
        context.record.plot("success", success_bars(worn, target, subject))
        context.record.plot("worn", worn_images(worn, data.classes, target, subject))
        context.record.plot("pattern", pattern_picture(physical.shown(pattern, data.shape), subject))

    def best_target(self, context: Context, data: Dataset, network: nn.Module, physical: PhysicalAttack) -> int:
        """The class that most training images are classified as, by a pattern that is trained for it in fewer steps."""
        own = random_subset(data.train, physical.training_images, context.seed)
        x, y = next(batches(own, len(own), context.hardware.device))
        count = len(data.classes)
        with seeded(context.seed), Progress[None](total=count, desc="choosing the target", unit="class") as bar:
            rates = physical.success_rates(network, x, y, count, bar.update)
        context.record.note(target_rates=dict(zip(data.classes, rates, strict=True)))
        return max(range(len(rates)), key=rates.__getitem__)

    def row(self, context: Context, data: Dataset, worn: PatchedResult, target: int) -> None:
        """Write one row of metrics.csv."""
        n = len(worn.labels)
        success = {scene: worn.success(scene, target) for scene in worn.predicted}
        still_right = int((worn.predicted[PATTERN] == worn.labels).sum())
        context.record.metrics(
            {
                "physical": context.record.choices["physical"],
                "target": data.classes[target],
                "transformation": worn.name,
            },
            **by_image("success_rate", success[PATTERN]),
            **proportion("noise_success_rate", int(success[NOISE].sum()), n),
            **proportion("bare_success_rate", int(success[BARE].sum()), n),
            **proportion("accuracy", still_right, n),
            **proportion("bare_accuracy", int((worn.predicted[BARE] == worn.labels).sum()), n),
            **average("mean_target_confidence", worn.confidence),
        )


def of_others(split: Split, target: int) -> Split:
    """The examples that are not of the target class."""
    others = (split.labels != target).nonzero()[:, 0]
    if not len(others):
        raise InputError("physical.target: every image is of this class; choose another")
    return split.subset(others)


def transformations(physical: PhysicalAttack) -> dict[str, Ranges]:
    """The ranges with no transformation, with each single one, and with all together."""
    each = {field.name: physical.ranges.only(field.name) for field in fields(Ranges)}
    return {"none": Ranges.nothing(), **each, "all": physical.ranges}


@torch.no_grad()
def tried_on(
    network: nn.Module,
    physical: PhysicalAttack,
    pattern: Tensor,
    name: str,
    ranges: Ranges,
    tried: Split,
    keep: int,
    device: torch.device,
) -> PatchedResult:
    """Predictions in the same poses: with the pattern, with random noise in its place, and without either."""
    seen: dict[str, list[Tensor]] = {PATTERN: [], NOISE: [], BARE: []}
    examples, bare, confidence, labels = [], [], [], []
    for x, y in batches(tried, BATCH, device):
        pose = ranges.draw(len(x), device)
        noise = physical.finished(torch.rand(len(x), *pattern.shape, device=device))
        for scene, put in ((PATTERN, pattern), (NOISE, noise), (BARE, None)):
            shown = physical.apply(x, put, pose)
            logits = logits_of(network, shown)
            seen[scene].append(predicted_classes(logits).cpu())
            if scene == BARE:
                bare.append(shown[:keep].cpu())
            if scene == PATTERN:
                confidence.append(logits.softmax(1)[:, physical.goal].cpu())
                examples.append(shown[:keep].cpu())
        labels.append(y.cpu())
    predicted = {scene: torch.cat(parts) for scene, parts in seen.items()}
    shown_first = torch.cat(examples)[:keep], torch.cat(bare)[:keep]
    return PatchedResult(name, torch.cat(labels), predicted, torch.cat(confidence), *shown_first)
