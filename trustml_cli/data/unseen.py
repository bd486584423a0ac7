"""Data not used in training: a left-out class, validation images, and another data set's images in the same shape."""

import torch

from trustml_cli.data.batches import as_pixels
from trustml_cli.data.dataset import Dataset, InMemory, Split
from trustml_cli.data.image_file import resize_pixels


def without_class(data: Dataset, number: int) -> tuple[Dataset, Split]:
    """`data` without class `number`, with later classes renumbered by −1, and the test images of that class."""

    def rest(split: Split) -> Split:
        kept = split.subset((split.labels != number).nonzero()[:, 0])
        kept.labels = kept.labels - (kept.labels > number).long()
        return kept

    less = data.derive(
        f"without={number}",
        train=rest(data.train),
        test=rest(data.test),
        classes=data.classes[:number] + data.classes[number + 1 :],
    )
    return less, data.test.subset((data.test.labels == number).nonzero()[:, 0])


def split_validation(data: Dataset, fraction: float, seed: int) -> tuple[Dataset, Split]:
    """`data` without a random share `fraction` of its training examples, and the examples held out."""
    train, validation = data.train.divide(fraction, seed)
    return data.derive(f"aside={fraction} seed={seed}", train=train), validation


def resize_like(split: Split, shape: tuple[int, int, int]) -> InMemory:
    """The images of a split as uint8 of another `shape` [C, H, W]: resized, and converted to grey or repeated."""
    batches = split.stream(torch.arange(len(split)), 1000)
    images = [resize_pixels(as_pixels(raw), shape) for raw, _ in batches]
    return InMemory(torch.cat(images).mul(255).round().to(torch.uint8), split.labels)
