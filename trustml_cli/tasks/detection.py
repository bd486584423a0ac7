"""Shared parts of the tasks that score images by detectors: fitting, scoring, and the check of a threshold."""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from tqdm import tqdm

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Split, random_subset
from trustml_cli.models.features import ModelOutputs, joined, model_outputs
from trustml_cli.ood.detector import Detector, FittedState, Fitting
from trustml_cli.ood.measure import DetectionResult
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import Hardware
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import BATCH

FEWEST = 5  # with fewer validation images beyond the threshold, the check is undecided


def check_threshold(context: Context, name: str, result: DetectionResult, validation: int, quantile: float) -> None:
    """Check that the share of test inliers below the threshold is `quantile`, within three standard errors.

    The check is undecided (None) where fewer than `FEWEST` validation images are expected beyond the threshold.
    """
    share = result.inliers_passed / len(result.inliers)
    enough = validation * (1 - quantile) >= FEWEST
    error = sqrt(quantile * (1 - quantile) * (1 / validation + 1 / len(result.inliers)))
    holds = abs(share - quantile) <= 3 * error
    figure = f"{share:.4f} of test inliers pass, {quantile:g} ± {3 * error:.4f} expected"
    context.record.check(f"the threshold of {name} holds for test images", holds if enough else None, figure)


def fit_detectors(
    network: nn.Module, train: Split, validation: Split, detectors: Mapping[str, Detector], context: Context
) -> dict[str, FittedState]:
    """Fit each detector to what the network computes for training and validation images."""
    learned: dict[str, FittedState] = {name: {} for name in detectors}
    learning = {name: detector for name, detector in detectors.items() if detector.learns}
    for images in {detector.learns_from for detector in learning.values()}:
        alike = {name: detector for name, detector in learning.items() if detector.learns_from == images}
        some = train if images is None else random_subset(train, images, context.seed)
        layers = layers_of(network, some, alike, context.hardware)
        fitting = [observed(network, split, layers, context.hardware) for split in (some, validation)]
        learned |= {name: detector.fit(*fitting) for name, detector in alike.items()}
    return learned


def layers_of(network: nn.Module, split: Split, detectors: Mapping[str, Detector], hardware: Hardware) -> list[str]:
    """The names of all layers that the detectors need."""
    x, _ = next(batches(split.subset(torch.arange(1)), 1, hardware.device))
    return sorted({name for detector in detectors.values() for name in detector.layers_of(network, x)})


def observed(network: nn.Module, split: Split, layers: Sequence[str], hardware: Hardware) -> Fitting:
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
            parts[name].append(detector.score(x, outputs, learned[name]))
    scores = {name: torch.cat(part) for name, part in parts.items()}
    for name, values in scores.items():
        if not values.isfinite().all():
            raise RunFailed(f"detector {name} gave a score that is no finite number")
    return scores


def looked_at(
    network: nn.Module, split: Split, layers: Sequence[str], hardware: Hardware, label: str
) -> Iterator[tuple[Tensor, ModelOutputs, Tensor]]:
    """Yield the images, what the network computes for them, and the labels, batch by batch."""
    images = batches(split.on(hardware.device), BATCH, hardware.device)
    for x, y in tqdm(images, total=-(-len(split) // BATCH), desc=label, unit="batch", disable=None):
        with torch.no_grad(), hardware.autocast():
            outputs = model_outputs(network, x, layers)
        yield x, outputs, y
