"""The base class of OOD detectors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trustml_cli.models.features import ModelOutputs

FittedState = Mapping[str, Tensor]
"""The state that a detector has fitted to the training images."""


@dataclass(frozen=True)
class Fitting:
    """What a network computes for images to fit a detector to, and their classes, int64 [N]."""

    outputs: ModelOutputs
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Scores how far images are from the training distribution. Subclasses declare their config keys as fields.

    A detector is stateless: `fit` returns its fitted state, which is passed to `score`.

        learned = detector.fit(Fitting(model_outputs(network, training), labels), Fitting(…))
        scores = detector.score(x, model_outputs(network, x), learned)
    """

    gradients: ClassVar[bool] = False
    """Whether it needs gradients by the images."""
    linear_head: ClassVar[bool] = False
    """Whether it needs logits that are the output of the network's last linear layer, without changes."""

    @property
    def learns(self) -> bool:
        """Whether `fit` learns anything from images."""
        return type(self).fit is not Detector.fit

    @property
    def learns_from(self) -> int | None:
        """The number of training images that `fit` needs at most; None for all of them."""
        return None

    def layers_of(self, network: nn.Module, x: Tensor) -> list[str]:
        """The names of the layers, besides the penultimate one, whose outputs it needs; x are any inputs.

        Raises ValueError where the network has no such layers.
        """
        return []

    def check(self, images: int) -> None:  # noqa: B027
        """Raise ValueError if the detector cannot be fitted on `images` training images. By default it can."""

    def fit(self, training: Fitting, validation: Fitting) -> FittedState:
        """Fit to training images and to `validation` images held out from training; the fitted state, by default {}."""
        return {}

    @abstractmethod
    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        """A score for each image x [N, C, H, W] in [0, 1], with the network's `outputs` for it.

        float64 [N] on the CPU: higher is further from the training distribution.
        """


def exact(values: Tensor) -> Tensor:
    """Convert to double precision, on the CPU, because not every device supports it."""
    return values.cpu().double()
