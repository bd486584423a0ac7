"""Shared parts of the tasks that inspect networks for a backdoor: what detectors need, and the inspected examples."""

from collections.abc import Mapping

import torch
from torch import nn

from trustml_cli.backdoor_detection.suspicion import Examples, Suspicion, latents_of
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.models.features import output_layer
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import Hardware
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH


def check_detectors(detectors: Mapping[str, Suspicion], data: Dataset) -> None:
    """Raise `InputError` for a detector that does not support this data set."""
    for name, detector in detectors.items():
        if detector.needs_images and len(data.shape) != 3:
            raise InputError(f"task.suspicion: {name} needs images; take task.suspicion=[spectral,clustering]")
        if len(data.classes) < detector.fewest_classes:
            fewest, here = detector.fewest_classes, len(data.classes)
            raise InputError(f"task.suspicion: {name} needs {fewest} classes, not {here}; take task.suspicion=strip")


def check_latents(model: Model, data: Dataset) -> None:
    """Raise `InputError` for a model without penultimate features."""
    with prefix_errors("model"):
        output_layer(model.build(input_spec(data)), torch.full((1, *data.shape), 0.5))


def examples(network: nn.Module, split: Split, hardware: Hardware) -> Examples:
    """All examples of a split with their latents in `network`."""
    x = torch.cat([x for x, _ in batches(split, BATCH, hardware.device)])
    return Examples(x, split.labels.cpu(), latents_of(network, x))
