"""task=inspect_backdoor: signs of a backdoor in a given network, of which nothing is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trustml_cli.backdoor_detection.suspicion import Finding, Inspection, Suspicion
from trustml_cli.data.dataset import Dataset, DatasetSource, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, lower, neither, sometimes
from trustml_cli.metrics.intervals import by_image
from trustml_cli.models.model import Model
from trustml_cli.plots.detect_backdoor import recovered_masks
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.inspection import check_latents, examples, supporting
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class InspectBackdoor:
    """Inspect a network and `images` of its training images (None: all) by each `suspicion`.

    As many test images are the defender's clean ones, whose scores set thresholds at their `quantile`. Nothing is
    poisoned, so that there is no rate of backdoors that are caught; see task=detect_backdoor for that.
    """

    columns: ClassVar[Columns] = (
        *conditions("suspicion"),
        *headline(lower("flagged_rate")),
        *sometimes(lower("anomaly_index")),
        *sometimes(neither("smallest_class", "smallest_mask", "median_mask")),
    )

    suspicion: list[str] | None
    quantile: float
    images: int | None

    def __post_init__(self) -> None:
        require(self, "quantile", above=0, below=1)
        require(self, "images", at_least=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        defence: Defence,
        suspicion: Mapping[str, Suspicion],
    ) -> None:
        """Write one row for each detector, then the plot of recovered masks."""
        data = context.load(dataset)
        detectors = supporting(self.suspicion, suspicion, data)
        check_latents(model, data)
        network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        suspects, clean = (
            split if self.images is None else random_subset(split, self.images, context.seed)
            for split in (data.train, data.test)
        )
        given = Inspection(
            network=network,
            suspects=examples(network, suspects, context.hardware),
            clean=examples(network, clean, context.hardware),
            classes=len(data.classes),
            quantile=self.quantile,
            seed=context.seed_for("inspection", 1),
        )
        found = {
            name: detector.inspect(given)
            for name, detector in Progress(detectors.items(), desc="inspecting", unit="detector")
        }
        for name, finding in found.items():
            if not finding.scores.isfinite().all():
                raise RunFailed(f"suspicion {name} gave a score that is no finite number")
            context.record.metrics({"suspicion": name}, **row(finding, data))
        context.record.artifact("scores", {name: finding.scores for name, finding in found.items()})
        for name, finding in found.items():
            if finding.masks is not None:
                figure = recovered_masks({"": finding}, name, data.classes, context.record.subject)
                context.record.plot("masks", figure)


def row(finding: Finding, data: Dataset) -> dict[str, Any]:
    """The values of one detector; those of masks only where it recovers some, their sizes in pixels."""
    values = by_image("flagged_rate", finding.flagged)
    if finding.anomaly_index is not None:
        values["anomaly_index"] = finding.anomaly_index
    if finding.masks is not None:
        sizes = finding.masks.flatten(1).sum(1)
        values["smallest_class"] = data.classes[int(sizes.argmin())]
        values |= {"smallest_mask": float(sizes.min()), "median_mask": float(sizes.quantile(0.5))}
    return values
