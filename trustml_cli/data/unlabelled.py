"""Image files without labels, decoded like those of a data set, a few at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trustml_cli.data.class_folders import left_out, pictures_below
from trustml_cli.data.dataset import DatasetSource
from trustml_cli.data.image_folder import ImageFolder
from trustml_cli.data.parquet import Parquet
from trustml_cli.data.pictures import Decoder
from trustml_cli.system.errors import InputError
from trustml_cli.system.printable import readable


@dataclass(frozen=True)
class Photo:
    """An image file: its path below the folder, and its pixels, uint8 [C, H, W], or what is wrong with it."""

    name: str
    pixels: Tensor | None
    problem: str = ""


def list_photos(folder: Path, key: str) -> tuple[list[Path], str]:
    """The image files in `folder` and below, and what was left out, in words. Errors name `key`."""
    if not folder.is_dir():
        raise InputError(f"{key}: there is no folder {folder}")
    skipped = Counter[str]()
    files = list(pictures_below(folder, skipped, key=key))
    others = left_out(skipped) if skipped else ""
    if not files:
        raise InputError(f"{key}: {folder} holds no images{f' ({others})' if others else ''}")
    return files, others


def decoder_like(source: DatasetSource, shape: Sequence[int], background: Sequence[float]) -> Decoder:
    """How image files become images of `shape` [C, H, W]: as `source` reads its own, or with this `background`.

    Raises ValueError for images that are not square.
    """
    channels, height, width = shape
    if height != width:
        raise ValueError(f"images are {width}×{height}; photos are cropped to squares")
    if isinstance(source, ImageFolder | Parquet):
        return replace(source.decoder, size=height, channels=channels)
    return Decoder(size=height, channels=channels, background=background)


def decode_photos(folder: Path, files: Sequence[Path], decoder: Decoder, at_once: int) -> Iterator[list[Photo]]:
    """Decode the files, `at_once` of which are in memory at a time; what cannot be decoded has a problem."""

    def decode(file: Path) -> Photo:
        name = readable(str(file.relative_to(folder)))
        try:
            return Photo(name, torch.from_numpy(decoder(file, name).pixels.copy()))
        except InputError as error:
            return Photo(name, None, str(error).removeprefix(f"dataset: {name} "))

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), at_once):
            yield list(pool.map(decode, files[start : start + at_once]))


def save_photo(pixels: Tensor, file: Path) -> None:
    """Write an image [C, H, W], with values in [0, 1], as a PNG file."""
    levels = pixels.mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)).save(file)
