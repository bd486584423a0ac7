"""The base class of OOD detectors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

FittedState = Mapping[str, Tensor]
"""The state that a detector has fitted to the training images."""


@dataclass(frozen=True)
class ModelOutputs:
    """A batch of images x [N, C, H, W] in [0, 1] and a network's outputs for it.

    `logits` have shape [N, K], penultimate `features`, the input of the last linear layer, [N, D].
    """

    network: nn.Module
    x: Tensor
    logits: Tensor
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Scores how far images are from the training distribution. Subclasses declare their config keys as fields.

    A detector is stateless: `fit` returns its fitted state, which is passed to `score`.

        learned = detector.fit(features, labels)
        scores = detector.score(ModelOutputs(network, x, logits, features), learned)
    """

    gradients: ClassVar[bool] = False
    """Whether it needs gradients by the images."""

    @property
    def learns(self) -> bool:
        """Whether `fit` learns anything from training images."""
        return type(self).fit is not Detector.fit

    def check(self, images: int) -> None:  # noqa: B027
        """Raise ValueError if the detector cannot be fitted on `images` training images. By default it can."""

    def fit(self, features: Tensor, labels: Tensor) -> FittedState:
        """Fit to training features [N, D] and classes, int64 [N]; returns the fitted state, by default empty."""
        return {}

    @abstractmethod
    def score(self, seen: ModelOutputs, learned: FittedState) -> Tensor:
        """A score for each image, float64 [N] on the CPU: higher is further from the training distribution."""


def exact(values: Tensor) -> Tensor:
    """Convert to double precision, on the CPU, because not every device supports it."""
    return values.cpu().double()
