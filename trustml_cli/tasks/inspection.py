"""Shared parts of the tasks that inspect networks for a backdoor: what detectors need, and the inspected examples."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from trustml_cli.backdoor_detection.suspicion import Examples, Suspicion, latents_of
from trustml_cli.config.instantiate import chosen
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.models.features import check_features
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import Hardware
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH

KEY = "task.suspicion"
log = logging.getLogger(__name__)


def supporting(names: Sequence[str] | None, family: Mapping[str, Suspicion], data: Dataset) -> dict[str, Suspicion]:
    """The detectors called `names`; None: all of the family that support the data set.

    Raises `InputError` for a name whose detector does not support it, and where none does.
    """
    found, reasons = {}, []
    for name, detector in (family if names is None else chosen(names, family, KEY)).items():
        reason = f"{name} {obstacle}" if (obstacle := obstacle_to(detector, data)) else None
        if reason is None:
            found[name] = detector
        elif names is not None:
            raise InputError(f"{KEY}: {reason}")
        else:
            log.info("%s, and is left out", reason)
            reasons.append(reason)
    if not found:
        raise InputError(f"{KEY}: no detector supports this data set: {', '.join(reasons)}")
    return found


def obstacle_to(detector: Suspicion, data: Dataset) -> str | None:
    """What a detector needs that the data set has not; None: nothing."""
    if detector.needs_images and len(data.shape) != 3:
        return "needs images"
    if len(data.classes) < detector.fewest_classes:
        return f"needs {detector.fewest_classes} classes, not {len(data.classes)}"
    return None


def check_latents(model: Model, data: Dataset) -> None:
    """Raise `InputError` for a model without penultimate features."""
    with prefix_errors("model"):
        check_features(model.build(input_spec(data)), torch.full((1, *data.shape), 0.5))


def examples(network: nn.Module, split: Split, hardware: Hardware) -> Examples:
    """All examples of a split with their latents in `network`."""
    x = torch.cat([x for x, _ in batches(split, BATCH, hardware.device)])
    return Examples(x, split.labels.cpu(), latents_of(network, x))
