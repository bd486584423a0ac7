"""From stored examples to the batches a network sees."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.data.dataset import Split
from trustml_cli.hardware import give_back_freed_memory

TIDY_EVERY = 8  # batches, in a pass over all examples


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn for each image on its own.

    `flip` mirrors an image left to right with probability one half. `crop_padding` pads each side with so many black
    pixels and cuts a window of the old size out at a random place.
    """

    flip: bool
    crop_padding: int

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] to augmented images of the same shape and type."""
        if self.crop_padding:
            images = random_crop(images, self.crop_padding)
        if self.flip:
            mirrored = torch.rand(len(images), device=images.device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Each image [N, C, H, W] zero-padded by `padding` and cut back to [H, W] at a random place of its own."""
    count, _, height, width = images.shape
    padded = functional.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: [N, C, 2p+1, 2p+1, H, W]
    places = 2 * padding + 1
    down, right = torch.randint(places, (2, count), device=images.device)
    return windows[torch.arange(count, device=images.device), :, down, right]


def as_pixels(raw: Tensor) -> Tensor:
    """Stored examples as floats: uint8 images become pixels in [0, 1], anything else is taken as it is."""
    return raw.float().div_(255) if raw.dtype == torch.uint8 else raw.float()


def batches(
    split: Split,
    batch_size: int,
    device: torch.device,
    order: Tensor | None = None,
    augmentation: Augmentation | None = None,
    memory_format: torch.memory_format = torch.channels_last,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs (float32, images in [0, 1]) and labels (int64) on `device`, in `order` (all in their order if None).

    Images come with their channels last in memory unless told otherwise: convolutions are faster that way.
    """
    whole = order is None  # whoever goes through all of them once keeps what they were answered
    order = torch.arange(len(split)) if order is None else order
    for number, (raw, labels) in enumerate(split.stream(order, batch_size), start=1):
        if whole and number % TIDY_EVERY == 0:
            give_back_freed_memory()
        raw, labels = raw.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        raw = augmentation(raw) if augmentation else raw
        yield as_pixels(raw.contiguous(memory_format=memory_format) if raw.dim() == 4 else raw), labels
