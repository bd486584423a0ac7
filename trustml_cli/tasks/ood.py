"""task=ood: out-of-distribution detection by scores of a classifier."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.config.instantiate import chosen
from trustml_cli.data.dataset import Dataset, DatasetSource, Split
from trustml_cli.data.unseen import split_validation, without_class
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither
from trustml_cli.metrics.intervals import proportion, with_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.features import check_features
from trustml_cli.models.model import Model, require_images
from trustml_cli.models.pretrained import AsPublished
from trustml_cli.ood.detector import Detector
from trustml_cli.ood.measure import DetectionResult, evaluate
from trustml_cli.ood.separation import MEASURES, separation_intervals
from trustml_cli.plots.ood import roc_curves, score_histograms
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.detection import check_threshold, fit_detectors, obstacle_to, outliers_of, score_images
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

KEY = "task.score"
MSP = "msp"  # its score is minus the largest softmax output


@dataclass(frozen=True, kw_only=True)
class DetectUnseen:
    """Train without the class `holdout`, then detect its images among those of the other classes by each `score`.

    `score` None takes all detectors that support the model.

    The threshold is the `quantile` of the scores of validation images, which are `validation_fraction` of the training
    images, held out before training; without `hold_out` they are trained on too: the network is that of other tasks,
    and fewer test images may pass. With `ood_dataset` all classes are trained, and the outliers are the test images of
    these data sets, each with rows of its own.
    """

    columns: ClassVar[Columns] = (
        *conditions("score", "outliers"),
        *neither("threshold"),
        *logged(neither("inlier_rate")),
        *logged(lower("outlier_inlier_rate")),
        *logged(higher("auroc")),
        *higher("aupr"),
        *headline(lower("fpr_at_95_tpr")),
        *higher("aupr_outliers_positive", "aupr_inliers_positive"),
        *lower("fpr_at_95_tpr_outliers_positive", "fpr_at_95_tpr_inliers_positive"),
        *higher("test_accuracy"),
    )

    holdout: int | str
    ood_dataset: list[str] | None
    score: list[str] | None
    quantile: float
    validation_fraction: float
    hold_out: bool

    def __post_init__(self) -> None:
        require(self, "quantile", "validation_fraction", above=0, below=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        detector: Mapping[str, Detector],
        outliers: Mapping[str, DatasetSource],
        defence: Defence,
    ) -> None:
        """Write one row for each score and set of outliers, then the plots."""
        named = detector if self.score is None else chosen(self.score, detector, KEY)
        whole = context.load(dataset)
        with prefix_errors("dataset"):
            require_images(input_spec(whole))
        far = None if self.ood_dataset is None else chosen(self.ood_dataset, outliers, "task.ood_dataset")
        if far is None and isinstance(model, AsPublished):
            raise InputError("task.holdout: a network that is taken as it is was trained on all its classes; give "
                             "task.ood_dataset, or train one without the class")  # fmt: skip
        known, unseen = self.divide(context, whole, far, dataset.limit)
        data, validation = split_validation(known, self.validation_fraction, context.seed)
        if not len(data.train):
            raise InputError("task.validation_fraction: leaves nothing to train on; lower it")
        x = torch.rand(2, *data.shape)
        with prefix_errors("model"):
            fresh = model.build(input_spec(data)).eval()
            check_features(fresh, x)  # without one there are no features
        detectors = self.able(named, fresh, fresh.image_gradient, x)
        for name in detectors:
            with prefix_errors(f"detector.{name}"):
                detectors[name].check(len(data.train))

        learned_from = data if self.hold_out else known
        network = context.train_or_load(context.spec(learned_from, model, trainer, defence=defence)).network
        # again: layers after the output layer may change nothing before they are trained
        detectors = self.able(detectors, network, True, x.to(context.hardware.device))
        learned = fit_detectors(network, data.train, validation, detectors, context)
        aside, inliers, *outside = (
            score_images(network, split, detectors, learned, context.hardware)
            for split in (validation, data.test, *unseen.values())
        )
        scores = dict(zip(unseen, outside, strict=True))
        answers = predict(network, data.test, context.hardware)
        accuracy = proportion("test_accuracy", int(answers.correct.sum()), len(answers.labels))
        results = {
            name: {kind: evaluate(aside[name], inliers[name], scores[kind][name], self.quantile) for kind in unseen}
            for name in detectors
        }
        for name, by_kind in results.items():
            for kind, result in by_kind.items():
                context.record.metrics({"score": name, "outliers": kind}, **row(result, context.seed), **accuracy)
            any_kind = next(iter(by_kind.values()))  # all have the same inliers
            passed, count = any_kind.inliers_passed, len(any_kind.inliers)
            check_threshold(context, name, passed, count, len(validation), self.quantile)
        context.record.note(verdict=in_words(results, "class" if far is None else "images of"))
        kept = {"validation": aside, "inliers": inliers}
        kept |= {f"outliers.{kind}" if len(scores) > 1 else "outliers": of_kind for kind, of_kind in scores.items()}
        tensors = {f"{split}.{name}": kept[split][name] for split in kept for name in detectors}
        context.record.artifact("scores", tensors)
        subject = context.record.subject
        if len(unseen) == 1:
            (only,) = unseen
            subject += f"; outliers: {'class ' if far is None else ''}{only}"
        context.record.plot("scores", score_histograms(results, subject))
        by_outliers = {kind: {name: by_kind[kind] for name, by_kind in results.items()} for kind in unseen}
        context.record.plot("roc", roc_curves(by_outliers, subject))
        context.plot_curves()

    def able(
        self, detectors: Mapping[str, Detector], network: nn.Module, image_gradient: bool, x: Tensor
    ) -> dict[str, Detector]:
        """The detectors that support the network; x are any images.

        One that does not is left out, or raises `InputError` if the user named it.
        """
        able = {}
        for name, detector in detectors.items():
            obstacle = obstacle_to(detector, network, image_gradient, x)
            if obstacle is None:
                with prefix_errors(f"detector.{name}"):
                    detector.layers_of(network, x)
                able[name] = detector
            elif self.score is None:
                log.info("%s is left out: it %s", name, obstacle)
            else:
                raise InputError(f"{KEY}: {name}: {obstacle}")
        return able

    def divide(
        self, context: Context, data: Dataset, far: Mapping[str, DatasetSource] | None, limit: int | None
    ) -> tuple[Dataset, dict[str, Split]]:
        """The in-distribution data set, and the outliers by name."""
        if far is not None:
            log.info("all classes are trained: the outliers are those of task.ood_dataset")
            return data, {name: outliers_of(context, name, far[name], data, limit) for name in far}
        with prefix_errors("task.holdout"):
            number = data.class_number(self.holdout)
        if len(data.classes) < 3:
            raise InputError("task.holdout: two or more classes must be left; the data set has two")
        known, unseen = without_class(data, number)
        if not (len(unseen) and len(known.test) and len(known.train)):
            raise InputError("task.holdout: the data set has no images with it or no others; raise dataset.limit")
        return known, {data.classes[number]: unseen}


def in_words(results: Mapping[str, Mapping[str, DetectionResult]], kind_of: str) -> str:
    """The threshold of one score, msp if it is among them, and what passes it, as a sentence.

    `kind_of` precedes the names of the outliers: they are a class, or images of a data set.
    """
    name = MSP if MSP in results else next(iter(results))
    by_kind = results[name]
    first = next(iter(by_kind.values()))
    passes = (
        f"a largest softmax output of at least {-first.threshold:.3f}"
        if name == MSP
        else f"a score of {name} of at most {first.threshold:.4g}"
    )
    known = first.inliers_passed / len(first.inliers)
    unseen = " and ".join(
        f"{in_percent(each.outliers_passed / len(each.outliers))} of the unseen {kind_of} {kind}"
        for kind, each in by_kind.items()
    )
    return f"A threshold that demands {passes} lets {in_percent(known)} of the known test images pass, and {unseen}."


def row(result: DetectionResult, seed: int) -> dict[str, object]:
    """The values of one row; where a column name does not state the positive class, it is the outliers."""
    found = result.separation
    ends = separation_intervals(result.inliers, result.outliers, seed)
    n = {
        "fpr_at_95_tpr_outliers_positive": found.inliers,
        "fpr_at_95_tpr_inliers_positive": found.outliers,
    }
    values = {
        name: with_interval(name, getattr(found, name), ends[name], n.get(name, found.inliers + found.outliers))
        for name in MEASURES
    }
    short = {
        key.replace("_outliers_positive", ""): value
        for name in ("aupr_outliers_positive", "fpr_at_95_tpr_outliers_positive")
        for key, value in values[name].items()
    }
    return {
        "threshold": result.threshold,
        **proportion("inlier_rate", result.inliers_passed, len(result.inliers)),
        **proportion("outlier_inlier_rate", result.outliers_passed, len(result.outliers)),
        **values.pop("auroc"),
        **short,
        **{key: value for named in values.values() for key, value in named.items()},
    }
