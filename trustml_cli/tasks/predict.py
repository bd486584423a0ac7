"""task=predict: a classifier's answers for image files without labels, and which it should not be asked about."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import as_pixels, batches
from trustml_cli.data.dataset import Dataset, DatasetSource, random_subset
from trustml_cli.data.unlabelled import Photo, decode_photos, decoder_like, list_photos, save_photo
from trustml_cli.data.unseen import split_validation
from trustml_cli.defences.defence import Defence
from trustml_cli.explainers.explainer import Explainer, Unsuitable
from trustml_cli.metrics.columns import Columns, headline, higher, logged, lower, neither
from trustml_cli.metrics.intervals import average, proportion
from trustml_cli.models.features import check_features, model_outputs
from trustml_cli.models.inference import gives_gradients
from trustml_cli.models.model import Model, require_images
from trustml_cli.ood.detector import Detector, FittedState
from trustml_cli.ood.measure import exact_quantile
from trustml_cli.plots.predictions import Answered, contact_sheet
from trustml_cli.system.errors import InputError, RunFailed, prefix_errors
from trustml_cli.system.hardware import Hardware
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.detection import check_threshold, fit_detectors, obstacle_to, score_images
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

AT_ONCE = 40  # photos in memory at a time, and on one contact sheet
SHOWN = 12  # photos in a picture on the page
COLUMNS, ON_PAGE = 8, 6  # photos in a row; on the page, where pictures are narrow
KEY = "task.folder"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Classify the image files in `folder` (None: a few test images, random pixels and negatives of test images).

    The network is that of `model` and `dataset`. A detector says which photos are unlike the training images: those
    whose score is above the `quantile` of the scores of validation images, which are held out from training. Files are
    decoded as those of the data set, and are in memory a few at a time; those that cannot be read are named.

    predictions.csv has a row for each file, artifacts/files_….png its picture; the plots show some of them.
    """

    columns: ClassVar[Columns] = (
        *headline(lower("unlike_rate")),
        *logged(neither("mean_confidence", "files")),
        *lower("unreadable"),
        *neither("threshold", "inlier_rate"),
        *higher("test_accuracy"),
    )

    folder: Path | None
    quantile: float
    validation_fraction: float
    background: list[float]

    def __post_init__(self) -> None:
        require(self, "quantile", "validation_fraction", above=0, below=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        detector: Mapping[str, Detector],
        explainer: Mapping[str, Explainer],
        defence: Defence,
    ) -> None:
        """Write predictions.csv and a row for all files together, then the plots."""
        name, detect = only(detector, "detector")
        whole = context.load(dataset)
        with prefix_errors("dataset"):
            require_images(input_spec(whole))
            decoder = decoder_like(dataset, whole.shape, self.background)
        with self.photos(whole, context) as folder:
            files, others = list_photos(folder, KEY)
            coming = decode_photos(folder, files, decoder, AT_ONCE)
            if not any(photo.pixels is not None for photos in coming for photo in photos):
                raise InputError(f"{KEY}: none of the {len(files):,} image files in {folder} can be read")
            data, validation = split_validation(whole, self.validation_fraction, context.seed)
            check(context, data, model, name, detect)
            network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
            if not model.trains:
                context.remark("model.checkpoint: the threshold is that of training images, which it may have learned")
            learned = fit_detectors(network, data.train, validation, {name: detect}, context)[name]
            aside, inliers = (
                score_images(network, split, {name: detect}, {name: learned}, context.hardware)[name]
                for split in (validation, data.test)
            )
            threshold = exact_quantile(aside, self.quantile)
            judge = Judge(network, detect, learned, threshold, saliency_of(explainer, network, data), data.classes,
                          context.hardware)  # fmt: skip
            found = Found()
            sheets = decode_photos(folder, files, decoder, AT_ONCE)
            for number, photos in enumerate(
                Progress(sheets, total=-(-len(files) // AT_ONCE), desc="classifying", unit="sheet"), start=1
            ):
                answers = judge(photos)
                context.record.append("predictions", [row(photo.name, answers.get(photo.name), photo.problem)
                                                      for photo in photos])  # fmt: skip
                if answers:
                    shown = list(answers.values())
                    title = f"Files {1 + AT_ONCE * (number - 1):,} to {AT_ONCE * (number - 1) + len(photos):,}"
                    context.record.plot(f"files_{number:05}", contact_sheet(shown, title, COLUMNS), on_page=False)
                    found.add(shown)
        self.write(context, found, len(files), threshold, inliers, network, data)
        check_threshold(context, name, int((inliers <= threshold).sum()), len(inliers), len(validation), self.quantile)
        if unread := len(files) - len(found.confidence):
            context.remark(f"{KEY}: {unread:,} of {len(files):,} image files cannot be read; predictions.csv says why")
        if others:
            context.remark(f"{KEY}: {others}")

    def write(
        self, context: Context, found: "Found", files: int, threshold: float, inliers: Tensor, network: nn.Module,
        data: Dataset,
    ) -> None:  # fmt: skip
        """Write the row for all files, and the plots of some."""
        answers = predict(network, data.test, context.hardware)
        read = len(found.confidence)
        context.record.metrics(
            **proportion("unlike_rate", found.unlike, read),
            **average("mean_confidence", torch.tensor(found.confidence)),
            files=files,
            unreadable=files - read,
            threshold=threshold,
            **proportion("inlier_rate", int((inliers <= threshold).sum()), len(inliers)),
            **proportion("test_accuracy", int(answers.correct.sum()), len(answers.labels)),
        )
        subject = f"{context.record.subject}: {found.unlike:,} of {read:,} files are unlike the training images"
        some = f"; the first {len(found.first)}" if read > len(found.first) else ""
        context.record.plot("files", contact_sheet(found.first, f"{subject}{some}", ON_PAGE))
        if some:
            context.record.plot("most_unlike", contact_sheet(found.most_unlike, "The most unlike", ON_PAGE))
            context.record.plot("least_sure", contact_sheet(found.least_sure, "The least confidence", ON_PAGE))

    @contextmanager
    def photos(self, data: Dataset, context: Context) -> Iterator[Path]:
        """The folder of photos; without one, a temporary folder of test images, random pixels and negatives."""
        if self.folder is not None:
            yield self.folder
            return
        log.info("%s is null: a few test images, random pixels and negatives of test images are classified", KEY)
        x, _ = next(batches(random_subset(data.test, 6, context.seed), 6, torch.device("cpu")))
        random = torch.Generator().manual_seed(context.seed)
        with TemporaryDirectory() as folder:
            for number, pixels in enumerate(x, start=1):
                save_photo(pixels, Path(folder, f"test_{number}.png"))
            for number, pixels in enumerate(x[:3], start=1):
                save_photo(1 - pixels, Path(folder, f"negative_{number}.png"))
                save_photo(torch.rand(pixels.shape, generator=random), Path(folder, f"random_{number}.png"))
            yield Path(folder)


@dataclass(frozen=True)
class Judge:
    """A network with a fitted detector, its threshold, and an explainer, if the network has gradients."""

    network: nn.Module
    detector: Detector
    learned: FittedState
    threshold: float
    explainer: Explainer | None
    classes: tuple[str, ...]
    hardware: Hardware

    def __call__(self, photos: list[Photo]) -> dict[str, Answered]:
        """The answers for the photos that could be read, by name."""
        known = [(photo.name, photo.pixels) for photo in photos if photo.pixels is not None]
        if not known:
            return {}
        x = as_pixels(torch.stack([pixels for _, pixels in known])).to(self.hardware.device)
        layers = self.detector.layers_of(self.network, x[:1])
        with torch.no_grad(), self.hardware.autocast():
            outputs = model_outputs(self.network, x, layers)
        scores = self.detector.score(x, outputs.only(layers), self.learned)
        if not scores.isfinite().all():
            raise RunFailed("the detector gave a score that is no finite number")
        confidence, predicted = outputs.logits.float().softmax(1).max(1)
        maps = None if self.explainer is None else self.explainer(self.network, x, predicted).cpu()
        return {
            name: Answered(
                name=name,
                label=self.classes[int(predicted[number])],
                confidence=confidence[number].item(),
                score=scores[number].item(),
                unlike=scores[number].item() > self.threshold,
                pixels=x[number].cpu(),
                saliency=None if maps is None else maps[number],
            )
            for number, (name, _) in enumerate(known)
        }


@dataclass
class Found:
    """What is kept of all answers: counts, confidences, and some to be shown."""

    unlike: int = 0
    confidence: list[float] = field(default_factory=list)
    first: list[Answered] = field(default_factory=list)
    most_unlike: list[Answered] = field(default_factory=list)
    least_sure: list[Answered] = field(default_factory=list)

    def add(self, answers: list[Answered]) -> None:
        """Take over the answers of one sheet."""
        self.unlike += sum(one.unlike for one in answers)
        self.confidence += [one.confidence for one in answers]
        self.first = self.first or answers[:SHOWN]
        self.most_unlike = sorted([*self.most_unlike, *answers], key=lambda one: -one.score)[:SHOWN]
        self.least_sure = sorted([*self.least_sure, *answers], key=lambda one: one.confidence)[:SHOWN]


def only(family: Mapping[str, T], group: str) -> tuple[str, T]:
    """The one choice of `group`, with its name."""
    if len(family) != 1:
        raise InputError(f"{group}: one at a time, got {', '.join(family) or 'none'}; use {group}=[NAME]")
    return next(iter(family.items()))


def check(context: Context, data: Dataset, model: Model, name: str, detector: Detector) -> None:
    """Raise `InputError` unless the detector supports the model and the data, before anything is trained."""
    if not len(data.train):
        raise InputError("task.validation_fraction: leaves nothing to train on; lower it")
    x = torch.rand(2, *data.shape)
    with prefix_errors("model"):
        fresh = model.build(input_spec(data)).eval()
        check_features(fresh, x)
    with prefix_errors(f"detector.{name}"):
        detector.check(len(data.train))
        detector.layers_of(fresh, x)
    if (obstacle := obstacle_to(detector, fresh, fresh.image_gradient, x)) is not None:
        raise InputError(f"detector: {name} {obstacle}")


def saliency_of(explainer: Mapping[str, Explainer], network: nn.Module, data: Dataset) -> Explainer | None:
    """The explainer, or None if the network does not support it."""
    name, one = only(explainer, "explainer")
    x = torch.full((1, *data.shape), 0.5, device=next(network.parameters()).device)
    try:
        if one.gradients and not gives_gradients(network, x):
            raise Unsuitable("needs gradients, which this network has not")
        one.check(network, data.shape)
    except Unsuitable as error:
        log.info("explainer %s is left out: it %s", name, error)
        return None
    return one


def row(name: str, answer: Answered | None, problem: str) -> dict[str, Any]:
    """The row of one file in predictions.csv."""
    return {
        "file": name,
        "class": answer and answer.label,
        "confidence": answer and answer.confidence,
        "unlike": answer and answer.unlike,
        "outlier_score": answer and answer.score,
        "problem": problem or None,
    }
