"""Decoding of image files of any size and format to uint8 arrays of one size."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trustml_cli.data.image_file import MODES, blended, read_image, why_unreadable
from trustml_cli.system.errors import InputError
from trustml_cli.system.progress import Progress
from trustml_cli.system.user_file import GB, memory_for_one_read

AT_ONCE = 256  # encoded images in memory at a time
REMARKS = {
    "jpeg": "went through JPEG, which is lossy",
    "deep": "have more than 8 bits per pixel; the range of their type became 0 to 255",
    "frames": "have several frames or pages; the first is read",
    "transparent": "are transparent in parts, where dataset.background shows",
}
"""What is worth saying of an image, and how it is said."""


@dataclass(frozen=True)
class Decoded:
    """An image as uint8 [channels, H, W], and which of `REMARKS` hold of it."""

    pixels: NDArray[np.uint8]
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How image files become arrays.

    With `size`, the shorter side is scaled to that many pixels and the centre square is cropped; without, an image
    keeps its size. `channels` is 1 (grey) or 3 (colour). `background` is the colour behind transparent parts: grey, or
    red, green and blue, in [0, 1].
    """

    size: int | None
    channels: int
    background: Sequence[float]

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size: must be at least 1 pixel (or null to keep each image's own), got {self.size}")
        if self.channels not in MODES:
            raise ValueError(f"channels: must be 1 (grey) or 3 (colour), got {self.channels}")
        if len(self.background) not in (1, 3) or not all(0 <= level <= 1 for level in self.background):
            raise ValueError(f"background: must be 1 value or 3 (red, green, blue) in [0, 1], got {self.background}")

    @property
    def origin(self) -> list[Any]:
        """What decoded images depend on beside the files, for the key of a cache."""
        return [self.size, self.channels, list(self.background)]

    def __call__(self, content: Path | bytes, name: str) -> Decoded:
        """Decode one image. Raises `InputError` with the image's `name` if it cannot be decoded."""
        try:
            square = None if self.size is None else (self.size, self.size)
            frame = read_image(content, None if square is None else (MODES[self.channels], square))
            image = blended(frame.image, self.background, MODES[self.channels])
            if square is not None and image.size != square:
                image = ImageOps.fit(image, square, Image.Resampling.BILINEAR)
            pixels = np.asarray(image, dtype=np.uint8)
            holds = {
                "jpeg": frame.jpeg,
                "deep": frame.deep,
                "frames": frame.frames,
                "transparent": frame.image.mode == "RGBA" and frame.image.getchannel("A").getextrema()[0] != 255,
            }
        except MemoryError:
            raise
        except Exception as error:  # a damaged file makes Pillow raise anything
            why = why_unreadable(content, error)
            raise InputError(f"dataset: {name} cannot be read as an image ({why})") from error
        remarks = tuple(remark for remark in holds if holds[remark])
        return Decoded(pixels.reshape(*pixels.shape[:2], self.channels).transpose(2, 0, 1), remarks)


def decode_pictures(
    count: int, pictures: Iterable[tuple[Path | bytes, str]], decoder: Decoder, label: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode `count` images, each with its name, on several threads: uint8 [N, C, H, W], and counts of `REMARKS`.

    At most `AT_ONCE` encoded images are in memory at a time. Raises `InputError` where the images differ in size, where
    their number is not `count`, or where they take more than half of the memory.
    """

    def decode(picture: tuple[Path | bytes, str]) -> Decoded:
        content, name = picture
        return decoder(content, name)

    coming, first, place = iter(pictures), "", 0
    images, remarks = np.empty((0, 0, 0, 0), dtype=np.uint8), Counter[str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress[None](total=count, desc=label, unit="image") as bar:
        while part := list(islice(coming, AT_ONCE)):
            for (_, name), image in zip(part, pool.map(decode, part), strict=True):
                pixels = image.pixels
                if not place:
                    images, first = room_for(count, pixels, label), name
                if pixels.shape != images.shape[1:]:
                    raise InputError(
                        f"dataset: {name} is {size_text(pixels)} but {first} is {size_text(images[0])}; "
                        "set dataset.size=PIXELS to bring all to one size"
                    )
                if place < count:
                    images[place] = pixels
                remarks.update(image.remarks)
                place += 1
                bar.update()
    if place != count:
        raise InputError(f"dataset: {label} holds {place:,} images, and says that it has {count:,}")
    return images, np.array([remarks[remark] for remark in REMARKS])


def remark_notes(remarks: NDArray[np.int64], images: int, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The counts of `REMARKS` as notes on a data set of so many images."""
    counts = dict(zip(REMARKS, remarks.tolist(), strict=True))
    return tuple(
        f"{counts[remark]:,} of {images:,} images {words}"
        for remark, words in REMARKS.items()
        if counts[remark] and remark not in leave_out
    )


def room_for(count: int, first: NDArray[np.uint8], label: str) -> NDArray[np.uint8]:
    """An empty array for `count` images of the shape of `first`; raises `InputError` where it is too large."""
    if (needed := count * first.nbytes) > memory_for_one_read():
        raise InputError(
            f"dataset: {label}: {count:,} images of {size_text(first)} take {needed / GB:,.0f} GB decoded, more than "
            "half of the memory; set a smaller dataset.size, or read folders with dataset.stream=always"
        )
    return np.empty((count, *first.shape), dtype=np.uint8)


def size_text(pixels: NDArray[np.uint8]) -> str:
    """Width and height of uint8 [C, H, W] as text, for example '640×480'."""
    return f"{pixels.shape[2]}×{pixels.shape[1]}"


def stack_labels(labels: Sequence[Any]) -> NDArray[np.int64]:
    """Class numbers as int64 [N]."""
    return np.asarray(labels, dtype=np.int64)
