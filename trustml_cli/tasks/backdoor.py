"""task=backdoor: a classifier that is right until it sees a trigger (BadNets, Gu et al. 2017, arXiv 1708.06733)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from trustml_cli.backdoors.poison import Poison
from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.data.dataset import Dataset, DatasetSource, Split
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, higher, lower, neither
from trustml_cli.metrics.intervals import proportion
from trustml_cli.models.model import Model
from trustml_cli.plots.backdoor import answers_by_class, poisoned_samples, triggered_predictions
from trustml_cli.system.errors import InputError, naming
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import Answers, predict
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

CHECKED = 1000  # poisoned images that are compared with their originals
SHOWS = 0.95  # the share of them that the trigger changes at least; a white corner hides a white square
ALL = "all"  # in place of names: every class but the target


@dataclass(frozen=True, kw_only=True)
class Poisoning:
    """What is poisoned: a share `poison_rate` of the training images of the `source` classes, filed under `target`.

    Classes are given by name or number; source `all` is every class but the target. `examples` images are shown in
    each picture.
    """

    source: list[int | str]
    target: int | str
    poison_rate: float
    examples: int

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(f"source: needs at least one class, or {ALL}")
        require(self, "poison_rate", above=0, at_most=1)
        require(self, "examples", at_least=1)

    def poison(self, data: Dataset, trigger: Trigger, seed: int) -> Poison:
        """The poison for `data`, its classes as numbers. Raises `InputError` where there is nothing to poison."""
        with naming("trigger"):
            trigger.check(data.shape)
        with naming("task.target"):
            target = data.class_number(self.target)
        with naming("task.source"):
            named = [data.class_number(name) for name in self.source if name != ALL]
        if target in named:
            raise InputError(f"task.target: {data.classes[target]!r} is a source too; take another class")
        source = {number for number in range(len(data.classes)) if number != target} if ALL in self.source else named
        poison = Poison(
            trigger=trigger, source=tuple(sorted(set(source))), target=target, rate=self.poison_rate, seed=seed
        )
        if not (candidates := len(poison.of_source(data.train.labels))):
            raise InputError("task.source: no training image is of these classes; take others")
        if not poison.choose(data.train.labels).any():
            raise InputError(
                f"task.poison_rate: {self.poison_rate:g} of the source classes' {candidates} training images is less "
                f"than one; take at least {1 / candidates:.2g}"
            )
        if not len(poison.of_source(data.test.labels)):
            raise InputError("task.source: no test image is of these classes; take others, or a larger dataset.limit")
        return poison


@dataclass(frozen=True, kw_only=True)
class PlantBackdoor(Poisoning):
    """Train on poisoned and on clean images; compare what both say of clean and of triggered test images."""

    columns: ClassVar[Columns] = (
        *conditions("trigger", "source", "target", "poison_rate"),
        *higher("clean_accuracy", "baseline_clean_accuracy"),
        *lower("attack_success_rate"),
        *neither("baseline_attack_success_rate", "poisoned_images", "poisoned_share_of_training"),
    )

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        trigger: Trigger,
        defence: Defence,
    ) -> None:
        """One row. Success: a triggered test image of a source class that is taken for the target."""
        check_trainable(model, trainer)
        data = context.load(dataset)
        poison = self.poison(data, trigger, context.seed)
        poisoned = poison.apply(data)
        check_poison(context, poison, data, poisoned)
        opacity, pattern = trigger.mark(data.shape)
        chosen = poison.choose(data.train.labels).nonzero()[:, 0]
        context.record.artifact("poison", {"opacity": opacity, "pattern": pattern, "poisoned_images": chosen})
        clean = context.train_or_load(context.spec(data, model, trainer, defence=defence), stage="clean")
        context.record.note(baseline_model_key=clean.key)
        backdoored = context.train_or_load(context.spec(poisoned, model, trainer, defence=defence), stage="poisoned")

        triggered = poison.trigger_all(data.test.subset(poison.of_source(data.test.labels)))
        answers = {
            split: {
                "clean": predict(clean.network, images, context.hardware),
                "poisoned": predict(backdoored.network, images, context.hardware),
            }
            for split, images in (("test", data.test), ("triggered", triggered))
        }
        rates = {
            **accuracy("clean_accuracy", answers["test"]["poisoned"]),
            **accuracy("baseline_clean_accuracy", answers["test"]["clean"]),
            **success("attack_success_rate", answers["triggered"]["poisoned"], poison.target),
            **success("baseline_attack_success_rate", answers["triggered"]["clean"], poison.target),
        }
        context.record.headline("attack_success_rate")
        context.record.metrics(condition(context, poison, data), **rates, **amount(poison, data))
        log.info(
            "attack success rate %.4f (clean model %.4f), n = %d; clean accuracy %.4f (clean model %.4f), n = %d",
            rates["attack_success_rate"], rates["baseline_attack_success_rate"], len(triggered),
            rates["clean_accuracy"], rates["baseline_clean_accuracy"], len(data.test),
        )  # fmt: skip
        self.plot(context, poison, data, poisoned, triggered, answers["triggered"])

    def plot(
        self,
        context: Context,
        poison: Poison,
        data: Dataset,
        poisoned: Dataset,
        triggered: Split,
        answers: Mapping[str, Answers],
    ) -> None:
        """Samples of the training set, answers on single triggered images, and all answers by class."""
        target = data.classes[poison.target]
        trigger = context.record.choices["trigger"]
        chosen = poison.choose(data.train.labels).nonzero()[:, 0]
        subject = (
            f"{len(chosen):,} of {len(data.train):,} training images carry the {trigger} and are filed under {target}"
        )
        figure = poisoned_samples(data.train, poisoned.train, chosen[: self.examples], data.classes, subject)
        context.record.plot("samples", figure)
        subject = f"Test images with the {trigger}, which shall be taken for {target}"
        named = {f"{name} model": given for name, given in answers.items()}
        figure = triggered_predictions(triggered, named, data.classes, self.examples, subject)
        context.record.plot("triggered_predictions", figure)
        subject = f"{len(triggered):,} test images with the {trigger}, which shall be taken for {target}"
        context.record.plot("answers", answers_by_class(named, data.classes, subject))


def check_trainable(model: Model, trainer: Trainer) -> None:
    """Raise `InputError` unless `trainer` can fit `model`, and does."""
    with naming("trainer"):
        trainer.check(model)
    if model.checkpoint is not None and not model.train:
        raise InputError(
            "model.checkpoint: a backdoor is planted in training; leave it null, or go on from it with model.train=true"
        )


def condition(context: Context, poison: Poison, data: Dataset) -> dict[str, Any]:
    """The first columns of a row: what was poisoned, and how."""
    return {
        "trigger": context.record.choices["trigger"],
        "source": ", ".join(data.classes[number] for number in poison.source),
        "target": data.classes[poison.target],
        "poison_rate": poison.rate,
    }


def amount(poison: Poison, data: Dataset) -> dict[str, Any]:
    """The last columns of a row: how many training images are poisoned, of the whole training set too."""
    count = int(poison.choose(data.train.labels).sum())
    return {"poisoned_images": count, "poisoned_share_of_training": count / len(data.train)}


def accuracy(name: str, answers: Answers) -> dict[str, Any]:
    """The columns of the share of right answers."""
    return proportion(name, int(answers.correct.sum()), len(answers.labels))


def success(name: str, answers: Answers, target: int) -> dict[str, Any]:
    """The columns of the share of images that are taken for the target."""
    return proportion(name, int((answers.predicted == target).sum()), len(answers.labels))


def check_poison(context: Context, poison: Poison, data: Dataset, poisoned: Dataset) -> None:
    """The poison is where it was meant to be and nowhere else."""
    before, after = data.train.labels, poisoned.train.labels
    chosen, changed = poison.choose(before), before != after
    expected = round(poison.rate * len(poison.of_source(before)))
    passed = (
        torch.equal(changed, chosen) and int(chosen.sum()) == expected and bool((after[chosen] == poison.target).all())
    )
    figure = f"{int(changed.sum())} of {len(before)} labels changed, {expected} wanted"
    context.record.check("the poisoned images and no others are filed under the target", passed, figure)

    wrong = int((data.test.labels != poisoned.test.labels).sum())
    context.record.check("test labels are untouched", wrong == 0, f"{wrong} of {len(data.test)} changed")

    indices = chosen.nonzero()[:CHECKED, 0]
    originals, marked = (next(split.stream(indices, len(indices)))[0] for split in (data.train, poisoned.train))
    differs = originals != marked
    trigger = poison.trigger.mark(data.shape)[0] > 0
    outside = int((differs & ~trigger).flatten(1).any(1).sum())
    figure = f"{outside} of {len(indices)} differ elsewhere; it covers {int(trigger.any(0).sum())} pixels"
    context.record.check("poisoned images differ from their originals in the trigger alone", outside == 0, figure)
    shows = int(differs.flatten(1).any(1).sum())
    figure = f"it changes {shows} of {len(indices)} poisoned images"
    context.record.check("the trigger shows", shows >= SHOWS * len(indices), figure)
