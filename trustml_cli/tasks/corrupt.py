"""task=corrupt: a classifier's accuracy and calibration on images under common corruptions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trustml_cli.config.instantiate import chosen
from trustml_cli.corruptions.corruption import Corruption, check_severity
from trustml_cli.data.batches import as_pixels, batches
from trustml_cli.data.dataset import Dataset, DatasetSource, Split, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.bootstrap import LEVELS, drawn_again
from trustml_cli.metrics.calibration import calibration_columns
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, by_image, proportion, with_interval
from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.models.model import Model
from trustml_cli.plots.corruption import accuracy_over_strength, corrupted_images, corruption_errors
from trustml_cli.plots.style import class_name
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import BatchSplitter, Hardware, seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import BATCH, Answers
from trustml_cli.training.trainer import Trainer

CLEAN, MEAN = "none", "mean"

Key = tuple[str, int]
"""A corruption and its strength."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MeasureCorruptions:
    """Ask about `images` test images (None: all) under each `corruption` in each strength of `severity`, from 1.

    With a `baseline`, a model by name that is trained alike without a defence, errors are divided by its errors.
    `examples` images are shown in the grid of corruptions.
    """

    columns: ClassVar[Columns] = (
        *conditions("corruption", "severity"),
        *headline(higher("accuracy")),
        *lower("nll", "brier"),
        *logged(lower("ece")),
        *lower("ece_adaptive", "ece_classwise"),
        *neither("ece_null", "mean_confidence"),
        *sometimes(neither("baseline_accuracy")),
        *sometimes(lower("corruption_error", "relative_corruption_error")),
    )

    corruption: list[str]
    severity: list[int]
    baseline: str | None
    images: int | None
    examples: int

    def __post_init__(self) -> None:
        require(self, "images", "examples", at_least=1)
        if not self.severity or min(self.severity) < 1:
            raise ValueError(f"severity: must be numbers of at least 1, got {self.severity}")

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        corruption: Mapping[str, Corruption],
        others: Mapping[str, Model],
        defence: Defence,
    ) -> None:
        """Write a row for clean images, for the mean in each strength, and for each corruption, then the plots."""
        asked = chosen(self.corruption, corruption, "task.corruption")
        with prefix_errors("task"):
            check_severity(asked, self.severity)
        data = context.load(dataset)
        if len(data.shape) != 3:
            raise InputError("dataset: needs images, because rows of a table cannot be corrupted like that")
        networks = [context.train_or_load(context.spec(data, model, trainer, defence=defence), "classifier").network]
        for name, other in others.items():
            networks.append(context.train_or_load(context.spec(data, other, trainer), name).network)
        some = data.test if self.images is None else random_subset(data.test, self.images, context.seed)
        keys = [(name, strength) for name in asked for strength in sorted({*self.severity})]
        results = {
            key: answers(networks, some, asked.get(key[0]), key[1], context)
            for key in Progress([(CLEAN, 0), *keys], desc="corrupting", unit="condition")
        }
        errors = error_columns(results, context.seed) if others else {}
        rows = {key: row(own, base, context.seed) for key, (own, *base) in results.items()}
        context.record.metrics({"corruption": CLEAN, "severity": 0}, **rows[CLEAN, 0])
        self.write_means(context, results, rows, errors.get(MEAN, {}))
        for name, strength in keys:
            condition = {"corruption": name, "severity": strength}
            context.record.metrics(condition, **rows[name, strength], **errors.get(name, {}))
        self.plot(context, networks[0], data, some, asked, errors)

    def write_means(
        self,
        context: Context,
        results: Mapping[Key, list[Answers]],
        rows: Mapping[Key, Mapping[str, Any]],
        errors: Mapping[str, object],
    ) -> None:
        """Write a row for each strength: the mean over the corruptions."""
        for strength in sorted({*self.severity}):
            own = [values for (_, at), values in rows.items() if at == strength]
            shares = [
                torch.stack([part[number].correct for (_, at), part in results.items() if at == strength])
                .double()
                .mean(0)
                for number in range(len(results[CLEAN, 0]))
            ]
            names = ("nll", "brier", "ece", "ece_adaptive", "ece_classwise", "ece_null", "mean_confidence")
            values = {name: sum(each[name] for each in own) / len(own) for name in names}
            both = (
                by_image(name, share) for name, share in zip(("accuracy", "baseline_accuracy"), shares, strict=False)
            )
            accuracies = {name: value for columns in both for name, value in columns.items()}
            context.record.metrics({"corruption": MEAN, "severity": strength}, **accuracies, **values, **errors)

    def plot(
        self,
        context: Context,
        network: nn.Module,
        data: Dataset,
        split: Split,
        asked: Mapping[str, Corruption],
        errors: Mapping[str, Mapping[str, object]],
    ) -> None:
        """Plot accuracy and calibration over the strength, errors relative to the baseline, and corrupted images."""
        rows, subject = context.record.rows, context.record.subject
        context.record.plot("accuracy", accuracy_over_strength(rows, f"{subject}, n = {len(split):,}"))
        if errors:
            context.record.plot("errors", corruption_errors(errors, f"{subject}, relative to {self.baseline}"))
        raw, labels = next(split.stream(torch.arange(min(self.examples, len(split))), self.examples))
        strengths = sorted({*self.severity})
        for number, (image, label) in enumerate(zip(as_pixels(raw), labels.tolist(), strict=True), start=1):
            shown = {}
            for name, one in asked.items():
                with seeded(context.seed):
                    images = [image, *(one(image[None], at)[0] for at in strengths)]
                with torch.no_grad():
                    logits = logits_of(network, torch.stack(images).to(context.hardware.device))
                said = [(class_name(data.classes, own), own == label) for own in predicted_classes(logits).tolist()]
                shown[name] = [(each, *answer) for each, answer in zip(images, said, strict=True)]
            title = f"{subject}: an image of class {data.classes[label]}"
            context.record.plot(f"images_{number}", corrupted_images(shown, strengths, title))


def answers(
    networks: list[nn.Module], split: Split, corruption: Corruption | None, severity: int, context: Context
) -> list[Answers]:
    """The answers of each network for the same images, corrupted if there is a corruption."""
    hardware: Hardware = context.hardware

    @torch.no_grad()
    def ask(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        shown = x if corruption is None else corruption(x, severity)
        with hardware.autocast():
            return torch.stack([network(shown).float() for network in networks]), y

    with seeded(context.seed):
        parts = list(BatchSplitter().over(batches(split, BATCH, hardware.device), ask))
    logits, labels = torch.cat([each for each, _ in parts], dim=1).cpu(), torch.cat([each for _, each in parts]).cpu()
    return [Answers(each, labels) for each in logits]


def row(own: Answers, base: list[Answers], seed: int) -> dict[str, object]:
    """The values of one row, with their intervals."""
    baseline = [proportion("baseline_accuracy", int(each.correct.sum()), len(each.labels)) for each in base]
    return {
        **proportion("accuracy", int(own.correct.sum()), len(own.labels)),
        **calibration_columns(own.logits, own.labels, seed),
        **average("mean_confidence", own.confidence),
        **(baseline[0] if baseline else {}),
    }


def error_columns(results: Mapping[Key, list[Answers]], seed: int) -> dict[str, dict[str, object]]:
    """The columns of each corruption's error relative to the baseline's, and of their mean (`MEAN`).

    The error of a corruption is the sum of the errors over all strengths, divided by that sum for the baseline; for the
    relative error, the error on clean images is subtracted before (Hendrycks and Dietterich 2019, section 4.1).
    Intervals are percentiles of a bootstrap over the images, the same for both networks.
    """
    wrong = torch.stack([torch.stack([~each.correct for each in parts]) for parts in results.values()])
    count = wrong.shape[2]
    flat = wrong.flatten(0, 1).T.double().numpy()
    draws = [counts @ flat / count for counts in drawn_again(np.zeros(count, dtype=np.int64), seed)]
    # the first draw is the sample itself
    errors = np.concatenate([flat.mean(0)[None], *draws]).reshape(-1, len(results), 2)
    names = list(dict.fromkeys(name for name, _ in results if name != CLEAN))
    found: dict[str, dict[str, object]] = {name: {} for name in (*names, MEAN)}
    for column, clean in (("corruption_error", 0.0), ("relative_corruption_error", errors[:, :1])):
        ratios = dict(zip(names, corruption_ratios(errors - clean, list(results), names), strict=True))
        ratios[MEAN] = np.mean(list(ratios.values()), axis=0)
        for name, values in ratios.items():
            found[name] |= ratio_columns(column, values, count)
    return found


def corruption_ratios(errors: Floats, keys: list[Key], names: list[str]) -> Iterator[Floats]:
    """For each corruption, Σ errors over its strengths divided by that of the baseline, [draws]."""
    for name in names:
        rows = [number for number, (each, _) in enumerate(keys) if each == name]
        own, base = np.moveaxis(errors[:, rows].sum(1), 1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            yield np.where(base > 0, own / base, np.nan)


def ratio_columns(name: str, values: Floats, n: int) -> dict[str, object]:
    """The columns of the first of these values, with the interval of the others."""
    known = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(known, LEVELS) if len(known) else (np.nan, np.nan)
    value = float(values[0])
    return with_interval(name, value, (min(float(low), value), max(float(high), value)), n)
