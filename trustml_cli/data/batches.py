"""Batches of stored examples, converted to floats and augmented."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.data.dataset import Split
from trustml_cli.system.hardware import release_freed_memory

TIDY_EVERY = 8  # batches between two releases of freed memory, in a pass over all examples


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training images, drawn independently for each image.

    `flip` mirrors an image left to right with probability one half. `crop_padding` pads each side with that many black
    pixels and crops a window of the original size at a random position.
    """

    flip: bool
    crop_padding: int

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Augment images [N, C, H, W], which have `indices` [N] in the split; shape and dtype are kept."""
        if self.crop_padding:
            images = random_crop(images, self.pad(images))
        if self.flip:
            images = torch.where(self.mirrors(indices)[:, None, None, None], images.flip(-1), images)
        return images

    def pad(self, images: Tensor) -> Tensor:
        """The images padded by `crop_padding` pixels on each side."""
        return functional.pad(images, [self.crop_padding] * 4)

    def mirrors(self, indices: Tensor) -> Tensor:
        """Which of these images to mirror, bool [N]."""
        return torch.rand(len(indices), device=indices.device) < 0.5


@dataclass(frozen=True)
class SettledAugmentation(Augmentation):
    """Augmentation with reflection padding and fixed mirroring: `mirrored` is bool [N] over all images of the split."""

    mirrored: Tensor

    def pad(self, images: Tensor) -> Tensor:
        for dim in (2, 3):
            places = reflected(images.shape[dim], self.crop_padding)
            images = images.index_select(dim, places.to(images.device, non_blocking=True))  # does not wait for a GPU
        return images

    def mirrors(self, indices: Tensor) -> Tensor:
        return self.mirrored[indices]


def reflected(size: int, padding: int) -> Tensor:
    """Indices of reflection padding for a row of `size` pixels, int64 [size + 2 · padding]; edges are not repeated.

    Needed because `functional.pad` does not support reflection of uint8 on a GPU.
    """
    there_and_back = max(1, 2 * (size - 1))
    places = torch.arange(-padding, size + padding) % there_and_back
    return torch.where(places < size, places, there_and_back - places)


def random_crop(images: Tensor, padded: Tensor) -> Tensor:
    """Crop each of the `padded` images at its own random position to the shape of `images` [N, C, H, W]."""
    count, _, height, width = images.shape
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: [N, C, 2p+1, 2p+1, H, W]
    places = windows.shape[2]
    down, right = torch.randint(places, (2, count), device=images.device)
    return windows[torch.arange(count, device=images.device), :, down, right]


def as_pixels(raw: Tensor) -> Tensor:
    """Stored examples as float32: uint8 images are scaled to [0, 1], other types are only converted."""
    return raw.float().div_(255) if raw.dtype == torch.uint8 else raw.float()


def batches(
    split: Split,
    batch_size: int,
    device: torch.device,
    order: Tensor | None = None,
    augmentation: Augmentation | None = None,
    memory_format: torch.memory_format = torch.channels_last,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs (float32, images in [0, 1]) and labels (int64) on `device`, in `order` (None: all, in order).

    Images are channels last in memory by default, because convolutions are faster that way.
    """
    whole = order is None  # a pass over all examples accumulates its results in memory
    order = torch.arange(len(split)) if order is None else order
    parts = torch.split(order.to(device), batch_size)
    stream = zip(parts, split.stream(order, batch_size), strict=True)
    for number, (indices, (raw, labels)) in enumerate(stream, start=1):
        if whole and number % TIDY_EVERY == 0:
            release_freed_memory()
        raw, labels = raw.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        raw = augmentation(raw, indices) if augmentation else raw
        yield as_pixels(raw.contiguous(memory_format=memory_format) if raw.dim() == 4 else raw), labels
