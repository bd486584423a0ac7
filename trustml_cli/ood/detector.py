"""What every detector of unfamiliar images is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

FittedState = Mapping[str, Tensor]
"""What a detector has learned from the training images."""


@dataclass(frozen=True)
class ModelOutputs:
    """A batch of images x [N, C, H, W] in [0, 1] and what a network makes of it.

    `logits` have shape [N, K], penultimate `features`, the input of the last linear layer, [N, D].
    """

    network: nn.Module
    x: Tensor
    logits: Tensor
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Says how far images are from the training distribution. Subclasses name their keys as fields.

    A detector keeps nothing: what `fit` returns is handed to `score`.

        learned = detector.fit(features, labels)
        scores = detector.score(Seen(network, x, logits, features), learned)
    """

    @property
    def learns(self) -> bool:
        """Whether `fit` learns anything."""
        return type(self).fit is not Detector.fit

    def check(self, images: int) -> None:  # noqa: B027
        """Raise ValueError if it cannot be fitted on so many training images. By default it can."""

    def fit(self, features: Tensor, labels: Tensor) -> FittedState:
        """What it learns from the training images: features [N, D] and classes, int64 [N]. By default nothing."""
        return {}

    @abstractmethod
    def score(self, seen: ModelOutputs, learned: FittedState) -> Tensor:
        """A score for each image, float64 [N] on the CPU: higher is further from the training distribution."""


def exact(values: Tensor) -> Tensor:
    """In double precision, on the CPU: not every device has it."""
    return values.cpu().double()
