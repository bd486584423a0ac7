"""Decoding of image files of any size and format to uint8 arrays of one size."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from trustml_cli.data.image_file import MODES, open_picture
from trustml_cli.system.errors import InputError, one_line
from trustml_cli.system.user_file import GB, memory_for_one_read

AT_ONCE = 256  # encoded images in memory at a time


def decode_picture(content: Path | bytes, name: str, size: int | None, channels: int) -> NDArray[np.uint8]:
    """Decode one image to uint8 [channels, H, W].

    With `size`, its shorter side is scaled to that many pixels and the centre square is cropped; without, it keeps
    its size. Raises `InputError` with the image's `name` if it cannot be decoded.
    """
    try:
        with open_picture(content) as picture:
            if size is not None:
                picture.draft(MODES[channels], (size, size))  # lets Pillow decode a JPEG at reduced size
            image = ImageOps.exif_transpose(picture).convert(MODES[channels])  # apply the EXIF orientation
            if size is not None and image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image, dtype=np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise anything
        raise InputError(f"dataset: {name} cannot be read as an image ({one_line(error)})") from error
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)


def decode_pictures(
    count: int, pictures: Iterable[tuple[Path | bytes, str]], size: int | None, channels: int, label: str
) -> NDArray[np.uint8]:
    """Decode `count` images, each with its name, on several threads and stack them into uint8 [N, C, H, W].

    At most `AT_ONCE` encoded images are in memory at a time. Raises `InputError` where the images differ in size, where
    their number is not `count`, or where they take more than half of the memory.
    """

    def decode(picture: tuple[Path | bytes, str]) -> NDArray[np.uint8]:
        content, name = picture
        return decode_picture(content, name, size, channels)

    coming, first, place = iter(pictures), "", 0
    images = np.empty((0, 0, 0, 0), dtype=np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=count, desc=label, unit="image", disable=None) as bar:
        while part := list(islice(coming, AT_ONCE)):
            for (_, name), pixels in zip(part, pool.map(decode, part), strict=True):
                if not place:
                    images, first = room_for(count, pixels, label), name
                if pixels.shape != images.shape[1:]:
                    raise InputError(
                        f"dataset: {name} is {size_text(pixels)} but {first} is {size_text(images[0])}; "
                        "set dataset.size=PIXELS to bring all to one size"
                    )
                if place < count:
                    images[place] = pixels
                place += 1
                bar.update()
    if place != count:
        raise InputError(f"dataset: {label} holds {place:,} images, and says that it has {count:,}")
    return images


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


def check_size(size: int | None, channels: int) -> None:
    """Raise ValueError unless `decode_picture` supports this size and number of channels."""
    if size is not None and size < 1:
        raise ValueError(f"size: must be at least 1 pixel (or null to keep each image's own), got {size}")
    if channels not in MODES:
        raise ValueError(f"channels: must be 1 (grey) or 3 (colour), got {channels}")


def stack_labels(labels: Sequence[Any]) -> NDArray[np.int64]:
    """Class numbers as int64 [N]."""
    return np.asarray(labels, dtype=np.int64)
