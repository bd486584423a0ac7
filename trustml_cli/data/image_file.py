"""Picture files: opened with care, and those that methods put into images, triggers and masks."""

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
LARGEST = GB  # bytes of a picture file
Image.init()
FORMATS = [name for name in Image.OPEN if name != "EPS"]  # which is a program, and Pillow has Ghostscript run it
warnings.simplefilter("error", Image.DecompressionBombWarning)  # too many pixels are refused, not warned of


@contextmanager
def open_picture(content: Path | bytes) -> Iterator[Image.Image]:
    """The picture in a regular file or in its bytes, not decoded yet.

    Raises `OSError` where there is no such file, and whatever Pillow raises where it holds no picture.
    """
    source = opened(content, LARGEST) if isinstance(content, Path) else io.BytesIO(content)
    with source as file, Image.open(file, formats=FORMATS) as picture:
        yield picture


def read_picture(path: Path, channels: int, height: int, width: int) -> Tensor:
    """The picture in the file `path`, scaled to `height` × `width`: floats in [0, 1], [channels, height, width].

    `channels` is 1 for grey or 3 for colour. Raises ValueError, as of a field called `image`, if it is no picture.
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


@lru_cache(maxsize=4)  # a trigger asks for it with every batch
def scaled(file: Stamp, mode: str, height: int, width: int) -> Tensor:
    """The pixels of the picture in `file`, which is given by its stamp: a file that changes is read again."""
    with open_picture(Path(file[0])) as picture:
        upright = ImageOps.exif_transpose(picture).convert(mode)
        pixels = np.array(upright.resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
    return (torch.from_numpy(pixels).float() / 255).view(height, width, len(mode)).permute(2, 0, 1).contiguous()


def check_picture(path: Path) -> None:
    """Raise ValueError unless the file `path` holds a picture."""
    read_picture(path, channels=3, height=1, width=1)
