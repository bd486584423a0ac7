"""Shared parts of the tasks that poison a training set: the poison, its checks, and the columns of a row."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from trustml_cli.backdoors.concealment import Concealment
from trustml_cli.backdoors.poison import Poison
from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.data.dataset import Dataset
from trustml_cli.metrics.intervals import proportion
from trustml_cli.models.features import check_features
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import Answers
from trustml_cli.training.spec import Spec, TrainingSpec
from trustml_cli.training.step import CROSS_ENTROPY

CHECKED = 1000  # number of poisoned images compared with their originals
SHOWS = 0.95  # least share of them that the trigger must change; a white square does not change a white corner
ALL = "all"  # in place of names: every class but the target
NEXT = "next"  # in place of a target: the class after that of the image


@dataclass(frozen=True, kw_only=True)
class Poisoning:
    """Poison a share `poison_rate` of the training images of the `source` classes and label them `target`.

    Classes are given by name or number; source `all` is every class but the target. Target `next` is for each image
    the class after its own, unless a class has this name. With `clean_label` a share of the target class's own images
    is poisoned, and no label is changed. Each figure shows `examples` images.
    """

    source: list[int | str]
    target: int | str
    poison_rate: float
    clean_label: bool
    examples: int

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(f"source: needs at least one class, or {ALL}")
        require(self, "poison_rate", above=0, at_most=1)
        require(self, "examples", at_least=1)

    def poison(self, data: Dataset, trigger: Trigger, seed: int) -> Poison:
        """The poison for `data`, with classes as numbers. Raises `InputError` where no image would be poisoned."""
        with prefix_errors("trigger"):
            trigger = trigger.fitted_to(data)
        target = None
        if self.target != NEXT or NEXT in data.classes:
            with prefix_errors("task.target"):
                target = data.class_number(self.target)
        if target is None and self.clean_label:
            raise InputError("task.clean_label: poisons images of one target class; give task.target a class")
        with prefix_errors("task.source"):
            named = [data.class_number(name) for name in self.source if name != ALL]
        if target is not None and target in named:
            raise InputError(f"task.target: {data.classes[target]!r} is a source too; choose another class")
        source = {number for number in range(len(data.classes)) if number != target} if ALL in self.source else named
        poison = Poison(
            trigger=trigger,
            source=tuple(sorted(set(source))),
            target=target,
            classes=len(data.classes),
            clean_label=self.clean_label,
            rate=self.poison_rate,
            seed=seed,
        )
        if not (candidates := len(poison.candidates(data.train.labels))):
            key = "target" if self.clean_label else "source"
            raise InputError(f"task.{key}: no training image is of these classes; choose others")
        if not poison.choose(data.train.labels).any():
            whose = "the target class's" if self.clean_label else "the source classes'"
            raise InputError(
                f"task.poison_rate: {self.poison_rate:g} of {whose} {candidates} training images is less than one; "
                f"use at least {1 / candidates:.2g}"
            )
        if not len(poison.of_source(data.test.labels)):
            raise InputError("task.source: no test image is of these classes; choose others, or a larger dataset.limit")
        return poison


def check_trained(model: Model) -> None:
    """Raise `InputError` where `model` is not trained in this run: a backdoor is planted in training."""
    if not model.trains:
        raise InputError(
            "model.checkpoint: a backdoor is planted in training; leave it null, or add model.train=true"
            if model.checkpoint is not None
            else "trainer: a backdoor is planted in training, and none trains nothing; use trainer=default"
        )


def concealed(spec: Spec, concealment: Concealment, poison: Poison, strength: float) -> Spec:
    """`spec` of a poisoned network with the training step that conceals the poison; unchanged if nothing does.

    Raises `InputError` where another step, or a trainer without steps, is in its place, or a model without features.
    """
    step = concealment.step(poison, strength)
    if step == CROSS_ENTROPY:
        return spec
    if not isinstance(spec, TrainingSpec) or spec.step != CROSS_ENTROPY:
        raise InputError("concealment: is a way to train, and so is the defence; use defence=none")
    changed = replace(spec, step=step)
    changed.check()
    with prefix_errors("model"):
        check_features(spec.model.build(input_spec(spec.data)), torch.full((1, *spec.data.shape), 0.5))
    return changed


def condition(context: Context, poison: Poison, data: Dataset) -> dict[str, Any]:
    """The first columns of a row: trigger, source and target classes, and poison rate."""
    return {
        "trigger": context.record.choices["trigger"],
        "source": ", ".join(data.classes[number] for number in poison.source),
        "target": target_name(poison, data),
        "poison_rate": poison.rate,
    }


def target_name(poison: Poison, data: Dataset) -> str:
    """The name of the target class, or `next`."""
    return NEXT if poison.target is None else data.classes[poison.target]


def amount(poison: Poison, data: Dataset) -> dict[str, Any]:
    """The last columns of a row: the number of poisoned images, and their share of the training set."""
    count = int(poison.choose(data.train.labels).sum())
    return {"poisoned_images": count, "poisoned_share_of_training": count / len(data.train)}


def accuracy(name: str, answers: Answers) -> dict[str, Any]:
    """The columns of the accuracy, with its confidence interval."""
    return proportion(name, int(answers.correct.sum()), len(answers.labels))


def success(name: str, answers: Answers, poison: Poison) -> dict[str, Any]:
    """The columns of the share of triggered images classified as their target, with its confidence interval."""
    return proportion(name, int((answers.predicted == poison.aims(answers.labels)).sum()), len(answers.labels))


def check_poison(context: Context, poison: Poison, data: Dataset, poisoned: Dataset) -> None:
    """Check that exactly the chosen training images are changed, under the trigger only, and relabelled."""
    before, after = data.train.labels, poisoned.train.labels
    chosen, aims = poison.choose(before), poison.aims(before)
    changed, wanted = before != after, chosen & (aims != before)
    expected = round(poison.rate * len(poison.candidates(before)))
    passed = torch.equal(changed, wanted) and int(chosen.sum()) == expected and torch.equal(after[chosen], aims[chosen])
    figure = f"{int(changed.sum())} of {len(before)} labels changed, {int(wanted.sum())} wanted"
    context.record.check("the poisoned images and no others are labelled as the target", passed, figure)

    wrong = int((data.test.labels != poisoned.test.labels).sum())
    context.record.check("test labels are untouched", wrong == 0, f"{wrong} of {len(data.test)} changed")

    indices = chosen.nonzero()[:CHECKED, 0]
    originals, marked = (next(split.stream(indices, len(indices)))[0] for split in (data.train, poisoned.train))
    differs = originals != marked
    trigger = poison.trigger(originals) != originals
    outside = int((differs & ~trigger).flatten(1).any(1).sum())
    figure = f"{outside} of {len(indices)} differ elsewhere; it covers {covered(trigger)} pixels"
    context.record.check("poisoned images differ from their originals in the trigger alone", outside == 0, figure)
    shows = int(differs.flatten(1).any(1).sum())
    figure = f"it changes {shows} of {len(indices)} poisoned images"
    context.record.check("the trigger shows", shows >= SHOWS * len(indices), figure)


def covered(changed: torch.Tensor) -> int:
    """The number of pixels, or of features of a table, that are changed in any of the images [N, C, H, W] or [N, D]."""
    anywhere = changed.any(0)
    return int((anywhere.any(0) if anywhere.dim() == 3 else anywhere).sum())
