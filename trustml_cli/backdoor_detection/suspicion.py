"""The base class of backdoor detectors, what they inspect, and what they find."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.models.features import model_outputs

BATCH = 250  # inputs per forward pass


@dataclass(frozen=True)
class Examples:
    """N inputs `x`, images in [0, 1], on the network's device, their `labels`, int64 [N], and penultimate `latents`.

    Latents are float64 [N, D] on the CPU, as are the labels.
    """

    x: Tensor
    labels: Tensor
    latents: Tensor


@dataclass(frozen=True)
class Inspection:
    """What a defender has: a network in eval mode, training examples with their labels, and clean examples.

    Some of the `suspects` may be poisoned, `clean` are none that the network was trained on. Thresholds are the
    `quantile` of the scores of the clean ones. Random draws depend on `seed`.
    """

    network: nn.Module
    suspects: Examples
    clean: Examples
    classes: int
    quantile: float
    seed: int


@dataclass(frozen=True)
class Finding:
    """A score for each suspect, float64 [N], higher for more suspicious ones, and which are `flagged`, bool [N].

    `anomaly_index` judges the network, where the detector does; `masks` [K, H, W] and `patterns` [K, C, H, W] in [0, 1]
    are the triggers that it recovered for each class.
    """

    scores: Tensor
    flagged: Tensor
    anomaly_index: float | None = None
    masks: Tensor | None = None
    patterns: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Suspicion(ABC):
    """Scores how suspicious training examples are. Subclasses declare their config keys as fields."""

    needs_images: ClassVar[bool] = False
    """Whether it supports only images, not tabular data."""
    fewest_classes: ClassVar[int] = 2
    """The number of classes that it needs."""

    @abstractmethod
    def inspect(self, seen: Inspection) -> Finding:
        """Inspect the suspects, without knowing which of them are poisoned."""


def beyond_clean(scores: Tensor, clean: Tensor, quantile: float) -> Tensor:
    """Which scores are above the smallest clean score that is at or above a share `quantile` of them, bool [N]."""
    rank = ceil(quantile * len(clean) - 1e-9)  # in floating point, 0.55 · 100 is slightly above 55
    return scores > clean.kthvalue(max(1, rank)).values


@torch.no_grad()
def latents_of(network: nn.Module, x: Tensor) -> Tensor:
    """Penultimate features of inputs x [N, …], float64 [N, D] on the CPU."""
    return torch.cat([model_outputs(network, part).features.cpu().double() for part in torch.split(x, BATCH)])
