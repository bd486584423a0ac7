"""task=norms: images that are far apart in a norm and that a person takes for the same."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm
from trustml_cli.corruptions.look_alike import brighter, distances, every_value, moved, one_pixel
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import DatasetSource, Split, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, neither
from trustml_cli.metrics.intervals import average, proportion
from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.models.model import Model
from trustml_cli.plots.norms import Pair, pairs_by_norm
from trustml_cli.plots.style import class_name
from trustml_cli.system.errors import InputError
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.trainer import Trainer

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class CompareNorms:
    """Change `images` test images in a way that is large in each `norm` and small to the eye.

    L0: every value by one grey level; L1: `brightness` is added to every value; L2: a `shift` to the right in pixels;
    L∞: one pixel in a corner from one end of the range to the other. The distance from the original is compared with
    that of the nearest of `pool` training images of another class. `examples` images are shown for each norm.
    """

    columns: ClassVar[Columns] = (
        *conditions("norm", "change"),
        *logged(neither("distance", "nearest_other_class")),
        *headline(neither("share_beyond_another_class")),
        *logged(higher("agreement")),
        *higher("clean_accuracy", "accuracy"),
    )

    norm: list[Norm]
    brightness: float
    shift: int
    images: int
    pool: int
    examples: int

    def __post_init__(self) -> None:
        if not self.norm:
            raise ValueError("norm: needs at least one of l0, l1, l2, linf")
        require(self, "brightness", above=0, at_most=1)
        require(self, "shift", "images", "pool", "examples", at_least=1)

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer, defence: Defence
    ) -> None:
        """Write one row for each norm, then the plot.

        `share_beyond_another_class` is the share of images whose changed copy is at least as far away as the nearest
        training image of another class; `agreement` that of those for which the network predicts the same class.
        """
        data = context.load(dataset)
        if len(data.shape) != 3:
            raise InputError("dataset: needs images, because a person sees no rows of a table")
        if self.shift >= data.shape[2]:
            raise InputError(f"task.shift: must be below the {data.shape[2]} pixels of an image")
        test = drawn(data.test, self.images, context)
        pool = drawn(data.train, self.pool, context)
        other_class = test.labels[:, None] != pool.labels
        if not other_class.any(1).all():
            raise InputError("task.pool: holds images of one class alone; use more")
        network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        pairs: list[Pair] = []
        named = {number: class_name(data.classes, number) for number in range(-1, len(data.classes))}
        with torch.no_grad():
            before = predicted_classes(logits_of(network, test.images))
            for norm in dict.fromkeys(self.norm):
                words, change = self.changes()[norm]
                changed = change(test.images)
                after = predicted_classes(logits_of(network, changed))
                own = distances(test.images, changed, norm.value).diagonal()
                nearest, where = distances(test.images, pool.images, norm.value).where(other_class, torch.inf).min(1)
                row = judged(own, nearest, before, after, test.labels)
                context.record.metrics({"norm": norm.value, "change": words}, **row)
                pairs += [
                    Pair(
                        norm=norm.value,
                        change=words,
                        images=(test.images[i], changed[i], pool.images[where[i]]),
                        distances=(own[i].item(), nearest[i].item()),
                        answers=(named[int(before[i])], named[int(after[i])]),
                        other_class=data.classes[pool.labels[where[i]]],
                    )
                    for i in range(min(self.examples, len(own)))
                ]
        context.record.plot("pairs", pairs_by_norm(pairs, context.record.subject))

    def changes(self) -> dict[Norm, tuple[str, Change]]:
        """The change for each norm, and its name."""
        return {
            Norm.l0: ("every value by 1/255", every_value),
            Norm.l1: (f"brightness +{self.brightness:g}", partial(brighter, step=self.brightness)),
            Norm.l2: (f"shift by {self.shift} px", partial(moved, pixels=self.shift)),
            Norm.linf: ("one pixel", one_pixel),
        }


class Drawn(NamedTuple):
    """Random images [N, C, H, W] of a split and their labels [N], on the run's device."""

    images: Tensor
    labels: Tensor


def drawn(split: Split, count: int, context: Context) -> Drawn:
    """`count` random images of a split, or all if there are fewer."""
    some = random_subset(split, count, context.seed)
    return Drawn(*next(batches(some, len(some), context.hardware.device)))


def judged(own: Tensor, nearest: Tensor, before: Tensor, after: Tensor, labels: Tensor) -> dict[str, object]:
    """The values of one row: distances `own` and to the `nearest` of another class, and answers before and after."""
    n = len(own)
    return {
        **average("distance", own.cpu()),
        **average("nearest_other_class", nearest.cpu()),
        **proportion("share_beyond_another_class", int((own >= nearest).sum()), n),
        **proportion("agreement", int(((after == before) & (after >= 0)).sum()), n),
        **proportion("clean_accuracy", int((before == labels).sum()), n),
        **proportion("accuracy", int((after == labels).sum()), n),
    }
