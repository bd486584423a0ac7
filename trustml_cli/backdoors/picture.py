"""Pictures that serve as triggers."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MODES = {1: "L", 3: "RGB"}


@lru_cache(maxsize=4)  # a trigger asks for it with every batch
def read_picture(path: Path, channels: int, height: int, width: int) -> Tensor:
    """The picture in the file `path`, scaled to `height` × `width`: floats in [0, 1], [channels, height, width].

    `channels` is 1 for grey or 3 for colour. Raises ValueError, as of a field called `image`, if it is no picture.
    """
    if channels not in MODES:
        raise ValueError(f"image: can be put on images of 1 or 3 channels only, not {channels}")
    try:
        with Image.open(path) as picture:
            scaled = picture.convert(MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise ValueError(f"image: {path} cannot be read as an image ({reason}); give a picture file") from error
    pixels = torch.from_numpy(np.array(scaled, dtype=np.uint8)).float() / 255
    return pixels.view(height, width, channels).permute(2, 0, 1).contiguous()


def check_picture(path: Path) -> None:
    """Raise ValueError unless the file `path` holds a picture."""
    read_picture(path, channels=3, height=1, width=1)


def picture_identity(path: Path) -> dict[str, object]:
    """The pixels of the picture, in short: it may change under the same name."""
    return {"image": hashlib.sha256(path.read_bytes()).hexdigest()}
