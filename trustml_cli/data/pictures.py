"""Picture files of any size and format to uint8 arrays of one size."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from trustml_cli.data.image_file import MODES, open_picture
from trustml_cli.system.errors import InputError


def decode_picture(content: Path | bytes, name: str, size: int | None, channels: int) -> NDArray[np.uint8]:
    """One picture as uint8 [channels, H, W].

    With `size`, its shorter side is scaled to that many pixels and the middle square is cut out; without, it keeps
    its size. Raises `InputError` naming the picture if it cannot be decoded.
    """
    try:
        with open_picture(io.BytesIO(content) if isinstance(content, bytes) else content) as picture:
            if size is not None:
                picture.draft(MODES[channels], (size, size))  # lets JPEG decode at a fraction of its size
            image = ImageOps.exif_transpose(picture).convert(MODES[channels])  # upright, as viewers show it
            if size is not None and image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image, dtype=np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise anything
        raise InputError(f"dataset: {name} cannot be read as an image ({one_line(error)})") from error
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)


def decode_pictures(
    count: int, decode: Callable[[int], NDArray[np.uint8]], label: str, names: Callable[[int], str]
) -> NDArray[np.uint8]:
    """`decode(0)` to `decode(count - 1)`, on several threads, stacked into uint8 [N, C, H, W]."""
    first = decode(0)
    images = np.empty((count, *first.shape), dtype=np.uint8)

    def put(index: int) -> None:
        pixels = decode(index)
        if pixels.shape != first.shape:
            raise InputError(
                f"dataset: {names(index)} is {size_text(pixels)} but {names(0)} is {size_text(first)}; "
                "set dataset.size=PIXELS to bring all to one size"
            )
        images[index] = pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in tqdm(pool.map(put, range(count)), total=count, desc=label, unit="image", disable=None):
            pass
    return images


def size_text(pixels: NDArray[np.uint8]) -> str:
    """'640×480' for uint8 [C, H, W]."""
    return f"{pixels.shape[2]}×{pixels.shape[1]}"


def one_line(error: BaseException) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def check_size(size: int | None, channels: int) -> None:
    """Raise ValueError unless the two can be asked of `decode_picture`."""
    if size is not None and size < 1:
        raise ValueError(f"size: must be at least 1 pixel (or null to keep each image's own), got {size}")
    if channels not in MODES:
        raise ValueError(f"channels: must be 1 (grey) or 3 (colour), got {channels}")


def stack_labels(labels: Sequence[Any]) -> NDArray[np.int64]:
    """Class numbers as int64 [N]."""
    return np.asarray(labels, dtype=np.int64)
