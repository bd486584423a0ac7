"""The base classes of calibrators: a function of the logits, fitted to images that the network was not trained on."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.system.ranges import require
from trustml_cli.training.wrapper import Wrapper, WrapperEpoch

BATCH = 250  # images per forward pass


@dataclass(frozen=True, kw_only=True)
class Calibrator:
    """No calibration; the base class of all calibrators.

    `validation_images` of the training images, a fifth of them at most, are held out from training.
    """

    validation_images: int

    def __post_init__(self) -> None:
        require(self, "validation_images", at_least=1)


class Calibration(nn.Module, ABC):
    """Calibrated logits [N, K] of a network's logits [N, K]; it is the identity until its buffers are loaded."""

    def __init__(self) -> None:
        super().__init__()
        for name in self.names:
            self.register_buffer(name, None)

    names: ClassVar[tuple[str, ...]]
    """The names of the buffers."""

    @abstractmethod
    def forward(self, logits: Tensor) -> Tensor: ...

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *others: Any) -> None:
        for name in self.names:  # their shapes are those of what was fitted
            self.register_buffer(name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *others)


@dataclass(frozen=True, kw_only=True)
class FittedCalibrator(Calibrator, Wrapper, ABC):
    """Fits a `Calibration` to the logits of held-out images. Subclasses declare their config keys as fields."""

    place: ClassVar = "calibration of"

    @property
    def learns_from(self) -> int:
        return self.validation_images

    @abstractmethod
    def calibration(self) -> Calibration:
        """The module, not yet fitted."""

    @abstractmethod
    def fit(self, logits: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """The buffers of the module, float32, fitted to logits [N, K] (float64, on the CPU) and labels [N]."""

    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
        """`network` followed by the calibration, as submodules `classifier` and `calibration`."""
        return nn.Sequential(OrderedDict(classifier=network, calibration=self.calibration()))

    def part(self, wrapped: nn.Sequential) -> nn.Module:
        return wrapped[1]

    def learn(self, part: nn.Module, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[WrapperEpoch]:
        with torch.no_grad():
            logits = torch.cat([network(images).cpu().double() for images in torch.split(x, BATCH)])
            part.load_state_dict(self.fit(logits, y.cpu()))
            calibrated = part.to(x.device)(logits.to(x.device, torch.float32)).cpu()
        part.eval()
        loss = functional.cross_entropy(calibrated.double(), y.cpu()).item()
        yield WrapperEpoch(0.0, loss, (calibrated.argmax(1) == y.cpu()).double().mean().item())
