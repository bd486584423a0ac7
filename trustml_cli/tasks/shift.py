"""task=shift: how a classifier's answers change when its images move by a few pixels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.corruptions.shift import Fill, offsets, shifted
from trustml_cli.data.batches import as_pixels, batches
from trustml_cli.data.dataset import DatasetSource, Split, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged
from trustml_cli.metrics.intervals import average, by_image, proportion
from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.models.model import Model
from trustml_cli.plots.shift import changed_answers, shift_curves, shift_map
from trustml_cli.plots.style import class_name
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import BatchSplitter, Hardware
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class MeasureShifts:
    """Ask about `images` test images (None: all), shifted by all offsets of up to `distance` pixels.

    Pixels that a shift uncovers get `fill`. `examples` images are shown whose answer changes with the smallest shift.
    """

    columns: ClassVar[Columns] = (
        *conditions("distance"),
        *headline(higher("accuracy")),
        *logged(higher("agreement", "share_invariant")),
        *higher("consistency"),
    )

    distance: int
    fill: Fill
    images: int | None
    examples: int

    def __post_init__(self) -> None:
        require(self, "distance", "images", "examples", at_least=1)

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer, defence: Defence
    ) -> None:
        """Write one row for each distance, then the plots."""
        data = context.load(dataset)
        if len(data.shape) != 3:
            raise InputError("dataset: needs images, because rows of a table cannot be shifted")
        if self.distance >= min(data.shape[1:]):
            raise InputError(f"task.distance: must be below the {min(data.shape[1:])} pixels of an image")
        network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        some = data.test if self.images is None else random_subset(data.test, self.images, context.seed)
        places = offsets(self.distance)
        predicted = self.predicted(network, some, places, context.hardware)
        for distance in range(self.distance + 1):
            context.record.metrics({"distance": distance}, **row(predicted, some.labels, places, distance))
        subject = f"{context.record.subject}, {self.fill.value} fill"
        right = (predicted == some.labels).double().mean(1)
        context.record.plot("map", shift_map(right, self.distance, f"{subject}, n = {len(some):,}"))
        context.record.plot("curves", shift_curves(context.record.rows, subject))
        self.plot_examples(context, some, predicted, places, data.classes)

    def predicted(self, network: nn.Module, split: Split, places: list[tuple[int, int]], hardware: Hardware) -> Tensor:
        """The predicted classes under each offset, int64 [offsets, N], on the CPU; −1 for invalid logits."""

        @torch.no_grad()
        def ask(x: Tensor, _: Tensor) -> Tensor:
            with hardware.autocast():
                answers = [
                    predicted_classes(logits_of(network, shifted(x, down, right, self.fill))) for down, right in places
                ]
            return torch.stack(answers).cpu()

        stream = batches(split, BATCH, hardware.device)
        progress = Progress(stream, total=-(-len(split) // BATCH), desc="shifting", unit="batch")
        return torch.cat(list(BatchSplitter().over(progress, ask)), dim=1)

    def plot_examples(
        self, context: Context, split: Split, predicted: Tensor, places: list[tuple[int, int]], classes: tuple[str, ...]
    ) -> None:
        """Plot images that are classified correctly, each with its smallest shift that changes the answer."""
        middle = places.index((0, 0))
        length = torch.tensor([down**2 + right**2 for down, right in places], dtype=torch.double)
        cost = length[:, None].where(predicted != split.labels, torch.inf)
        cost[:, predicted[middle] != split.labels] = torch.inf
        least, at = cost.min(0)
        shown = [number for number in least.argsort(stable=True)[: self.examples].tolist() if least[number] < torch.inf]
        if not shown:
            return
        raw, labels = next(split.stream(torch.tensor(shown), len(shown)))
        x = as_pixels(raw)
        moves = [places[int(at[number])] for number in shown]
        after = torch.cat([shifted(x[i : i + 1], *move, self.fill) for i, move in enumerate(moves)])
        before = [classes[int(label)] for label in labels]
        wrong = [class_name(classes, int(predicted[int(at[number]), number])) for number in shown]
        context.record.plot("changed", changed_answers(x, after, before, wrong, moves, context.record.subject))


def row(predicted: Tensor, labels: Tensor, places: list[tuple[int, int]], distance: int) -> dict[str, object]:
    """The values at one distance: means over the images with Student's intervals, and proportions with Wilson's.

    `accuracy` and `agreement` with the unshifted answer are over the offsets whose larger coordinate is `distance`.
    `share_invariant` is the share of images with one answer under all offsets up to it, and `consistency` the
    probability that two random offsets up to it have the same answer (Zhang 2019, arXiv 1904.11486).
    """
    reach = torch.tensor([max(abs(down), abs(right)) for down, right in places])
    at, within = predicted[reach == distance], predicted[reach <= distance]
    original = predicted[places.index((0, 0))]
    votes = torch.nn.functional.one_hot(within + 1).double().mean(0)[:, 1:]  # without those of no class
    answered = original >= 0
    right, same = (at == labels).double().mean(0), ((at == original) & answered).double().mean(0)
    invariant = (within == original).all(0) & answered
    return {
        **(average("accuracy", right) if distance else proportion("accuracy", int(right.sum()), len(labels))),
        **average("agreement", same),
        **by_image("share_invariant", invariant),
        **average("consistency", votes.square().sum(1)),
    }
