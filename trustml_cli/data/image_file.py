"""Safe opening of image files, and reading of those used as triggers and masks."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trustml_cli.system.errors import one_line
from trustml_cli.system.files import Stamp, stamp
from trustml_cli.system.user_file import GB, opened

MODES = {1: "L", 3: "RGB"}
LARGEST = GB  # maximum bytes of an image file
Image.init()
FORMATS = [name for name in Image.OPEN if name != "EPS"]  # EPS is a program that Pillow runs with Ghostscript
warnings.simplefilter("error", Image.DecompressionBombWarning)  # too many pixels are an error


@contextmanager
def open_picture(content: Path | bytes) -> Iterator[Image.Image]:
    """Open the image in a regular file or in its bytes, without decoding it.

    Raises `OSError` where there is no such file, and Pillow's errors where it holds no image.
    """
    source = opened(content, LARGEST) if isinstance(content, Path) else io.BytesIO(content)
    with source as file, Image.open(file, formats=FORMATS) as picture:
        yield picture


def read_picture(path: Path, channels: int, height: int, width: int) -> Tensor:
    """Read the image file `path`, scaled to `height` × `width`: float32 in [0, 1], [channels, height, width].

    `channels` is 1 for grey or 3 for colour. Raises ValueError, with a message about the key `image`, if it fails.
    """
    if channels not in MODES:
        raise ValueError(f"image: can be put on images of 1 or 3 channels only, not {channels}")
    try:
        return scaled(stamp(path), MODES[channels], height, width)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise anything
        reason = "no such file" if isinstance(error, FileNotFoundError) else one_line(error)
        raise ValueError(f"image: {path} cannot be read as an image ({reason}); give a picture file") from error


@lru_cache(maxsize=4)  # a trigger reads it for every batch
def scaled(file: Stamp, mode: str, height: int, width: int) -> Tensor:
    """The pixels of the image `file`, given by its stamp, so that a changed file is read again."""
    with open_picture(Path(file[0])) as picture:
        upright = ImageOps.exif_transpose(picture).convert(mode)
        pixels = np.array(upright.resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
    return (torch.from_numpy(pixels).float() / 255).view(height, width, len(mode)).permute(2, 0, 1).contiguous()


def check_picture(path: Path) -> None:
    """Raise ValueError unless `path` is a readable image file."""
    read_picture(path, channels=3, height=1, width=1)
