"""task=invert: reconstruction of images from a network (Fredrikson, Jha and Ristenpart 2015)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, proportion
from trustml_cli.models.model import Model
from trustml_cli.plots.inversion import reconstructions
from trustml_cli.privacy.inversion import Hint, blurred, invert, upper_half
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.reconstruction import Likeness, Scene, rmse
from trustml_cli.training.predict import BATCH, predict
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.trainer import Trainer

CORRELATIONS = ("correlation_class_average", "correlation_nearest_train", "correlation_nearest_test")


class Given(Enum):
    """What the attacker has beside the network and the class."""

    none = "none"
    """Nothing."""
    blurred = "blurred"
    """A blurred training image."""
    partial = "partial"
    """The upper half of a training image."""


@dataclass(frozen=True, kw_only=True)
class Invert:
    """Reconstruct up to `starts` images of each class in `target` (null: of all classes), with each of `given`.

    The attacked network is trained on half of the training images. The other half trains the network that judges
    whether a reconstruction shows its class. `steps`, `lr`, `tv` and `shift` are those of `invert`; the random starts
    of `given` none are between 0 and `brightness`; `fidelity` weighs what is given. Reconstructions are compared with
    `pool` training and as many test images.
    """

    columns: ClassVar[Columns] = (
        *conditions("given"),
        *headline(lower("recognised_rate")),
        *logged(lower("recognised_classes_rate")),
        *neither("confidence"),
        *sometimes(neither("distance_train", "distance_test")),
        *logged(sometimes(lower("distance_difference"))),
        *sometimes(neither(*CORRELATIONS)),
        *logged(sometimes(higher("rmse_train"))),
        *logged(sometimes(neither("rmse_test", "rmse_without_network"))),
        *sometimes(neither("rmse_given")),
        *neither("network_accuracy", "judge_accuracy"),
    )

    given: list[Given]
    target: list[int | str] | None
    starts: int
    steps: int
    lr: float
    tv: float
    shift: int
    brightness: float
    blur: float
    fidelity: float
    pool: int
    shown: int

    def __post_init__(self) -> None:
        if not self.given:
            raise ValueError("given: needs at least one of none, blurred, partial")
        require(self, "starts", "pool", at_least=2)
        require(self, "steps", "shown", at_least=1)
        require(self, "lr", "blur", above=0)
        require(self, "tv", "shift", "fidelity", at_least=0)
        require(self, "brightness", above=0, at_most=1)

    def __call__(self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer) -> None:
        """Write a row for each of `given`, a table of the classes, and the pictures."""
        data = context.load(dataset)
        if len(data.shape) != 3:
            raise InputError("dataset: holds no images to reconstruct; use digits, mnist, or other images")
        with prefix_errors("task.target"):
            chosen = range(len(data.classes)) if self.target is None else map(data.class_number, self.target)
            targets = list(dict.fromkeys(chosen))
        context.require_gradients(data, model, "task")
        half, other = data.train.divide(0.5, context.seed_for("halves", 1))
        attacked = data.derive(f"half A seed={context.seed}", train=half)
        judging = data.derive(f"half B seed={context.seed}", train=other)
        own = TrainingSpec(data=attacked, model=model, trainer=trainer, seed=context.seed)
        judges = TrainingSpec(data=judging, model=model.fresh(), trainer=trainer, seed=context.seed_for("judge", 1))
        network = context.train_or_load(own, stage="attacked").network
        judge = context.train_or_load(judges, stage="judge").network
        self.check(context, own.trains)
        scene = Scene.of(network, judge, attacked, self.pool, context.seed_for("pool", 1), context.hardware.device)
        accuracies: dict[str, Any] = {}
        for name, each in (("network_accuracy", network), ("judge_accuracy", judge)):
            answers = predict(each, data.test, context.hardware)
            accuracies |= proportion(name, int(answers.correct.sum()), len(data.test))
        for given in Progress(dict.fromkeys(self.given), desc="reconstructing"):
            with seeded(context.seed_for(given.value, 1)):
                measured = (
                    self.from_class(context, scene, data, targets)
                    if given is Given.none
                    else self.from_hint(context, scene, data, targets, given)
                )
            context.record.metrics({"given": given.value}, **measured, **accuracies)

    def check(self, context: Context, trained: bool) -> None:
        """Record that the judge is not the attacked network, nor trained on its images."""
        figure = "another seed and the other half of the training images" if trained else "of the network's, unknown"
        name = "the judge was trained on other images than the network"
        context.record.check(name, True if trained else None, figure)

    def reconstruct(
        self, scene: Scene, start: Tensor, target: Tensor, hint: Hint | None = None, alone: bool = False
    ) -> Tensor:
        """`invert` with the keys of the task, in parts; `alone`: without the network."""
        parts = []
        for rows in torch.split(torch.arange(len(start)), BATCH):
            known = None if hint is None else Hint(hint.observe, hint.values[rows], hint.weight)
            found = invert(None if alone else scene.network, start[rows], target[rows], steps=self.steps, lr=self.lr,
                           tv=self.tv, shift=self.shift, hint=known)  # fmt: skip
            parts.append(found)
        return torch.cat(parts)

    def from_class(self, context: Context, scene: Scene, data: Dataset, targets: list[int]) -> dict[str, Any]:
        """Reconstruct classes from the network alone, and compare with its images and their averages."""
        target = torch.tensor(targets, device=scene.average.device).repeat_interleave(self.starts)
        start = self.brightness * torch.rand(len(target), *data.shape, device=target.device)
        found = self.reconstruct(scene, start, target)
        like = Likeness.of(found, target, scene)
        confidence, recognised = scene.judged(found, target)
        context.record.artifact("none", {"reconstructed": found, "classes": target})
        self.say(context, like)
        self.classes(context, data, targets, recognised, like)
        best = [int(confidence[target.cpu() == number].argmax()) + self.starts * place
                for place, number in enumerate(targets)][: self.shown]  # fmt: skip
        rows = {
            "found": found[best],
            "average": scene.average[target[best]],
            "nearest": scene.train[0][like.nearest[best]],
        }
        names = [data.classes[number] for number in targets[: self.shown]]
        notes = {
            "average": [f"r = {value:.2f}" for value in like.with_average[best].tolist()],
            "nearest": [f"r = {value:.2f}" for value in like.with_train[best].tolist()],
        }
        subject = (
            f"{context.record.subject}: from the class alone\nabove the class average and the nearest training image"
        )
        context.record.plot("none", reconstructions(rows, names, notes, subject))
        return {
            **self.recognition(recognised, confidence, target.cpu()),
            **average("distance_train", self.by_class(like.train)),
            **average("distance_test", self.by_class(like.test)),
            **average("distance_difference", self.by_class(like.test - like.train)),
            **average(CORRELATIONS[0], self.by_class(like.with_average)),
            **average(CORRELATIONS[1], self.by_class(like.with_train)),
            **average(CORRELATIONS[2], self.by_class(like.with_test)),
        }

    def by_class(self, values: Tensor) -> Tensor:
        """The means of each class, whose starts may all end at the same image, [classes]."""
        return values.double().view(-1, self.starts).mean(1)

    def say(self, context: Context, like: Likeness) -> None:
        """Remark on what the reconstructions show."""
        gap = average("gap", self.by_class(like.with_train - like.with_test))["gap_ci_low"]
        if gap > 0:
            shown = "are closer to training images than to others"
        else:
            averaged = like.with_average.mean() > like.with_train.mean()
            what = "the average of the class" if averaged else "what networks take for the class"
            shown = f"show {what}, and no training image or person"
        context.remark(
            f"given=none: reconstructions correlate {like.with_average.mean():.2f} with the average of their class, "
            f"{like.with_train.mean():.2f} with the nearest training image and {like.with_test.mean():.2f} with the "
            f"nearest of as many test images: they {shown}"
        )

    def classes(self, context: Context, data: Dataset, targets: list[int], recognised: Tensor, like: Likeness) -> None:
        """Write classes.csv: how each class was recognised, and what its reconstructions look like."""
        rows = []
        for place, number in enumerate(targets):
            of = slice(place * self.starts, (place + 1) * self.starts)
            alike = {
                "the class average": like.with_average[of].mean().item(),
                "a training image": like.with_train[of].mean().item(),
                "a test image": like.with_test[of].mean().item(),
            }
            rows.append({
                "class": data.classes[number],
                **proportion("recognised_rate", int(recognised[of].sum()), self.starts),
                **dict(zip(CORRELATIONS, alike.values(), strict=True)),
                "closest_to": max(alike, key=lambda name: alike[name]),
            })  # fmt: skip
        context.record.table("classes", rows)

    def recognition(self, recognised: Tensor, confidence: Tensor, target: Tensor) -> dict[str, Any]:
        """The columns of recognition; a class is recognised where more than half of its reconstructions are."""
        by_class = [recognised[target == number].double().mean() > 0.5 for number in set(target.tolist())]
        return {
            **proportion("recognised_rate", int(recognised.sum()), len(recognised)),
            **proportion("recognised_classes_rate", sum(map(int, by_class)), len(by_class)),
            **average("confidence", confidence),
        }

    def from_hint(
        self, context: Context, scene: Scene, data: Dataset, targets: list[int], given: Given
    ) -> dict[str, Any]:
        """Reconstruct training images from what is given of them, and as many test images for comparison."""
        observe: Callable[[Tensor], Tensor] = (
            partial(blurred, deviation=self.blur) if given is Given.blurred else upper_half
        )
        errors: dict[str, Tensor] = {}
        for kind in ("test", "train"):
            images = [scene.of_class(number, self.starts, kind == "train") for number in targets]
            truth = torch.cat(images)
            if len(truth) < 2:
                raise InputError("task.pool: holds too few images of the classes in task.target; use more")
            counts = torch.tensor([len(each) for each in images])
            target = torch.tensor(targets).repeat_interleave(counts).to(truth.device)
            seen = observe(truth)
            start = torch.cat([seen, torch.zeros_like(truth[:, :, seen.shape[2] :])], 2)
            hint = Hint(observe, seen, self.fidelity)
            found = self.reconstruct(scene, start, target, hint)
            errors[kind] = rmse(found, truth)
        without = self.reconstruct(scene, start, target, hint, alone=True)
        confidence, recognised = scene.judged(found, target)
        first = [int(place) for place in (counts.cumsum(0) - counts)[counts > 0][: self.shown]]
        rows = {"original": truth, "given": start, "found": found, "no network": without}
        names = [data.classes[int(number)] for number in target[first]]
        kind = "a blur" if given is Given.blurred else "one half"
        subject = f"{context.record.subject}: training images from {kind}, with and without the network"
        shown = {name: images[first] for name, images in rows.items()}
        context.record.plot(given.value, reconstructions(shown, names, {}, subject))
        context.record.artifact(given.value, {"images": truth, "reconstructed": found, "classes": target})
        return {
            **self.recognition(recognised, confidence, target.cpu()),
            **average("rmse_train", errors["train"]),
            **average("rmse_test", errors["test"]),
            **average("rmse_without_network", rmse(without, truth)),
            **average("rmse_given", rmse(start, truth)),
        }
