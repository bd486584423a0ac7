"""Shared parts of the tasks that score images by detectors: fitting, scoring, and the check of a threshold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, Split, random_subset
from trustml_cli.data.unseen import resize_like
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.features import ModelOutputs, is_linear_head, joined, model_outputs
from trustml_cli.models.inference import NO_GRADIENT
from trustml_cli.ood.detector import Detector, FittedState, Fitting
from trustml_cli.system.errors import InputError, RunFailed
from trustml_cli.system.hardware import Hardware
from trustml_cli.system.progress import Progress
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import BATCH

OTHER_LOGITS = "needs logits that are the output of the last linear layer, and this network changes them"
FEWEST = 5  # with fewer validation images beyond the threshold, the check is undecided


def check_threshold(context: Context, name: str, passed: int, inliers: int, validation: int, quantile: float) -> None:
    """Check that the share of test inliers below the threshold, `passed` of `inliers`, is `quantile`.

    It may differ by three standard errors. The check is undecided (None) where fewer than `FEWEST` validation images
    are expected beyond the threshold.
    """
    share = passed / inliers
    enough = validation * (1 - quantile) >= FEWEST
    error = sqrt(quantile * (1 - quantile) * (1 / validation + 1 / inliers))
    holds = abs(share - quantile) <= 3 * error
    figure = f"{in_percent(share)} of test inliers pass, {in_percent(quantile)} ± {in_percent(3 * error)} expected"
    context.record.check(f"the threshold of {name} holds for test images", holds if enough else None, figure)


def obstacle_to(detector: Detector, network: nn.Module, image_gradient: bool, x: Tensor) -> str | None:
    """What keeps a detector from supporting a network, or None; x are any images."""
    if detector.linear_head and not is_linear_head(network, x):
        return OTHER_LOGITS
    return NO_GRADIENT if detector.gradients and not image_gradient else None


def outliers_of(context: Context, name: str, source: DatasetSource, data: Dataset, limit: int | None) -> Split:
    """The test images of the data set called `name`, in the shape of those of `data`."""
    found = context.load(replace(source.like(data.shape), limit=source.limit or limit))
    if len(found.shape) != 3:
        raise InputError(f"task.ood_dataset: {name} is a table; use a data set of images")
    if found.fingerprint == data.fingerprint:
        raise InputError(f"task.ood_dataset: {name} is the data set that the model is trained on; choose another")
    channels, height, width = data.shape
    return resize_like(found.test, (channels, height, width))


def fit_detectors(
    network: nn.Module, train: Split, validation: Split, detectors: Mapping[str, Detector], context: Context
) -> dict[str, FittedState]:
    """Fit each detector to what the network computes for training and validation images.

    Raises `InputError` for one that does not support it: layers after the output layer may change nothing before they
    are trained.
    """
    x, _ = next(batches(train.subset(torch.arange(1)), 1, context.hardware.device))
    for name, detector in detectors.items():
        if (obstacle := obstacle_to(detector, network, True, x)) is not None:
            raise InputError(f"detector: {name} {obstacle}")
    learned: dict[str, FittedState] = {name: {} for name in detectors}
    learning = {name: detector for name, detector in detectors.items() if detector.learns}
    for images in {detector.learns_from for detector in learning.values()}:
        alike = {name: detector for name, detector in learning.items() if detector.learns_from == images}
        some = train if images is None else random_subset(train, images, context.seed)
        layers = layers_of(network, some, alike, context.hardware)
        training, held_out = (observed(network, split, layers, context.hardware) for split in (some, validation))
        for name, detector in alike.items():
            own = (Fitting(one.outputs.only(layers[name]), one.labels) for one in (training, held_out))
            learned[name] = detector.fit(*own)
    return learned


def layers_of(
    network: nn.Module, split: Split, detectors: Mapping[str, Detector], hardware: Hardware
) -> dict[str, list[str]]:
    """The names of the layers that each detector needs."""
    x, _ = next(batches(split.subset(torch.arange(1)), 1, hardware.device))
    return {name: detector.layers_of(network, x) for name, detector in detectors.items()}


def observed(network: nn.Module, split: Split, layers: Mapping[str, Sequence[str]], hardware: Hardware) -> Fitting:
    """What the network computes for all images of a split, with their classes."""
    parts = [(outputs, y) for _, outputs, y in looked_at(network, split, layers, hardware, "fitting")]
    outputs, labels = zip(*parts, strict=True)
    return Fitting(joined(outputs), torch.cat(labels))


def score_images(
    network: nn.Module,
    split: Split,
    detectors: Mapping[str, Detector],
    learned: Mapping[str, FittedState],
    hardware: Hardware,
) -> dict[str, Tensor]:
    """The scores of all images by each detector, [N]. Raises `RunFailed` if one is not finite."""
    parts: dict[str, list[Tensor]] = {name: [] for name in detectors}
    layers = layers_of(network, split, detectors, hardware)
    for x, outputs, _ in looked_at(network, split, layers, hardware, "scoring"):
        for name, detector in detectors.items():
            parts[name].append(detector.score(x, outputs.only(layers[name]), learned[name]))
    scores = {name: torch.cat(part) for name, part in parts.items()}
    for name, values in scores.items():
        if not values.isfinite().all():
            raise RunFailed(f"detector {name} gave a score that is not finite")
    return scores


def looked_at(
    network: nn.Module, split: Split, layers: Mapping[str, Sequence[str]], hardware: Hardware, label: str
) -> Iterator[tuple[Tensor, ModelOutputs, Tensor]]:
    """Yield the images, what the network computes for them, and the labels, batch by batch."""
    names = list(dict.fromkeys(name for each in layers.values() for name in each))
    images = batches(split.on(hardware.device), BATCH, hardware.device)
    for x, y in Progress(images, total=-(-len(split) // BATCH), desc=label, unit="batch"):
        with torch.no_grad(), hardware.autocast():
            outputs = model_outputs(network, x, names)
        yield x, outputs, y
