"""The base classes of triggers, and helpers for their colours."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Trigger(ABC):
    """Changes any example in the same way. Subclasses declare their config keys as fields."""

    @abstractmethod
    def __call__(self, inputs: Tensor) -> Tensor:
        """Maps inputs [N, …] as they are stored, or images as floats in [0, 1], to triggered ones of the same type."""

    @abstractmethod
    def fitted_to(self, data: Dataset) -> "Trigger":
        """The trigger for the examples of `data`.

        Raises ValueError, with the field's name first or with a remedy, unless they can carry it.
        """


@dataclass(frozen=True, kw_only=True)
class ImageTrigger(Trigger, ABC):
    """Changes images; subclasses implement `change`, and `check` where not every shape will do."""

    @abstractmethod
    def change(self, images: Tensor) -> Tensor:
        """Triggered images [N, C, H, W], of floats in [0, 1]; values outside of [0, 1] are clipped afterwards."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError, with the field's name first, if images of `shape` [C, H, W] cannot carry this trigger."""

    def __call__(self, images: Tensor) -> Tensor:
        """Maps images [N, C, H, W], uint8 or floats in [0, 1], to triggered ones of the same shape and type."""
        if images.dtype == torch.uint8:
            return self.change(images / 255).mul(255).round().clamp(0, 255).to(torch.uint8)
        return self.change(images).clamp(0, 1).to(images.dtype)

    def fitted_to(self, data: Dataset) -> Trigger:
        if len(data.shape) != 3:
            raise ValueError(
                f"marks images, but the data set holds rows of {data.shape[0]} numbers; use trigger=columns"
            )
        self.check(data.shape)
        return self


@dataclass(frozen=True, kw_only=True)
class Overlay(ImageTrigger, ABC):
    """(1 − opacity)·image + opacity·pattern; subclasses implement `mark`."""

    @abstractmethod
    def mark(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Opacity and pattern for images of `shape` [C, H, W]: two tensors of that shape, in [0, 1].

        Opacity 0 leaves a pixel unchanged, opacity 1 replaces it by the pattern. Raises ValueError, with the field's
        name first, if the trigger does not fit images of this shape.
        """

    def change(self, images: Tensor) -> Tensor:
        opacity, pattern = (part.to(images.device) for part in self.mark(tuple(images.shape[1:])))
        return (1 - opacity) * images + opacity * pattern

    def check(self, shape: tuple[int, ...]) -> None:
        self.mark(shape)


def painted(color: Sequence[float], shape: tuple[int, ...]) -> Tensor:
    """An image of `shape` [C, H, W] filled with `color`; a single value is a shade of grey."""
    if len(color) not in (1, shape[0]):
        raise ValueError(f"color: has {len(color)} values, but the images have {shape[0]} channels; give 1 for grey")
    return torch.tensor(color).view(-1, 1, 1).expand(shape).clone()


def check_color(color: Sequence[float]) -> None:
    """Raise ValueError unless `color` holds 1 value or 3, each in [0, 1]."""
    if len(color) not in (1, 3):
        raise ValueError(f"color: must have 1 value (grey) or 3 (red, green, blue), got {len(color)}")
    if not all(0 <= value <= 1 for value in color):
        raise ValueError(f"color: values must be in [0, 1], got {list(color)}")
