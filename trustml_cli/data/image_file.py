"""Reading of one image file: opened safely, upright, with 8 bits per channel, and what is transparent in it."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from trustml_cli.system.errors import one_line
from trustml_cli.system.recipe import CHANGES_NOTHING
from trustml_cli.system.user_file import GB, opened, read_bytes

MODES = {1: "L", 3: "RGB"}
LARGEST = GB  # maximum bytes of an image file
Image.init()
FORMATS = [name for name in Image.OPEN if name != "EPS"]  # EPS is a program that Pillow runs with Ghostscript
warnings.simplefilter("error", Image.DecompressionBombWarning)  # too many pixels are an error
SCALED_TO_16_BITS = ("PNG", "PPM", "JPEG2000")  # formats that Pillow scales to 0 to 65,535, whatever bits the file has
FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # in other formats further images are layers, views or smaller copies
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey, ITU-R BT.601


@contextmanager
def open_picture(content: Path | bytes) -> Iterator[Image.Image]:
    """Open the image in a regular file or in its bytes, without decoding it.

    Raises `OSError` where there is no such file, and Pillow's errors where it holds no image.
    """
    source = opened(content, LARGEST) if isinstance(content, Path) else io.BytesIO(content)
    with source as file, Image.open(file, formats=FORMATS) as picture:
        yield picture


@dataclass(frozen=True)
class FirstFrame:
    """The first frame of an image file, and what was done to it."""

    image: Image.Image
    """Upright, mode RGBA where anything may be transparent, else L or RGB."""
    jpeg: bool
    deep: bool
    """Whether it has 8 bits instead of more, or of floats."""
    frames: bool
    """Whether the file holds further frames or pages."""


def read_image(content: Path | bytes, draft: tuple[str, tuple[int, int]] | None = None) -> FirstFrame:
    """Decode the first frame of an image file; its EXIF orientation is applied, its colour profile is not.

    Palettes and CMYK become RGB. More than 8 bits are scaled by the range of their type, so that 65,535 of 16 bits
    becomes 255; floats must be in [0, 1]. `draft` is the mode and the least size to which a JPEG may be decoded. Raises
    ValueError for pixels of unknown range, and Pillow's errors for a damaged file.
    """
    with open_picture(content) as picture:
        frames = picture.format in FRAMES and getattr(picture, "is_animated", False)
        if draft is not None:
            picture.draft(*draft)
        pixels_as = [str(tile[3]) for tile in getattr(picture, "tile", ())]
        deep = any(";16" in each for each in pixels_as)  # where a pixel is a colour, Pillow reads the upper 8 bits
        image = ImageOps.exif_transpose(picture)
        if deep and image.mode == "RGB" and "transparency" in image.info:
            raise ValueError("has a transparent colour of 16 bits; save it with an alpha channel")
        if image.mode.startswith(("I", "F")):
            deep = True
            image = with_8_bits(image, picture.format, dict(getattr(picture, "tag_v2", {})))
        if image.has_transparency_data:
            image = image.convert("RGBA")
        elif image.mode not in ("L", "RGB"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        return FirstFrame(image, picture.format in ("JPEG", "MPO"), deep, frames)


def with_8_bits(image: Image.Image, file_format: str | None, tags: dict[int, Any]) -> Image.Image:
    """An image of mode I;16, I or F as L, or as LA where a grey level stands for transparency; see `read_image`."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())  # NaN where any value is
        if not 0 <= low <= high <= 1:
            raise ValueError(f"holds floats from {low:g} to {high:g}; scale them to 0 to 1, or save it with 8 bits")
        top = 1
    elif file_format in SCALED_TO_16_BITS:
        top = 65535
    elif file_format == "TIFF" and image.mode.startswith("I;16"):
        top = 2 ** int(tags.get(BITS_PER_SAMPLE, (16,))[0]) - 1
    else:
        raise ValueError("holds signed integers or 32 bits, of unknown range; save it with 8 or 16 bits")
    levels = np.rint(values * (255 / top)).clip(0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts such images of 8 bits only
        levels = 255 - levels
    grey = Image.fromarray(levels)
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def blended(image: Image.Image, background: Sequence[float], mode: str) -> Image.Image:
    """The image in `mode` (L or RGB) in front of `background`: grey, or red, green and blue, in [0, 1]."""
    if image.mode == "RGBA":
        red, green, blue = (round(255 * level) for level in (*background, *background, *background)[:3])
        image = Image.alpha_composite(Image.new("RGBA", image.size, (red, green, blue, 255)), image)
    return image.convert(mode)


def why_unreadable(content: Path | bytes, error: Exception) -> str:
    """In a few words, why an image file could not be read; a damaged file makes Pillow raise anything."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        return "its format, or its kind of pixels, is none that Pillow reads" if size else "it is empty"
    return one_line(error)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image file that a config names, as it was when it was read.

    `content` is the SHA-256 of its bytes, `pixels` are red, green, blue and opacity: uint8 [4, H, W].
    """

    content: str
    pixels: Tensor = field(metadata=CHANGES_NOTHING)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the image file at `path`. Raises ValueError if it cannot be read."""
        try:
            content = read_bytes(path, LARGEST)
            pixels = np.array(read_image(content).image.convert("RGBA"))
        except MemoryError:
            raise
        except Exception as error:
            why = why_unreadable(path, error)
            raise ValueError(f"{path} cannot be read as an image ({why}); give a picture file") from error
        return cls(sha256(content).hexdigest(), torch.from_numpy(pixels).permute(2, 0, 1))

    def resized(self, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Colour [channels, height, width] and opacity [1, height, width], both float32 in [0, 1].

        `channels` is 1 for grey or 3 for colour. Raises ValueError for any other number.
        """
        if channels not in MODES:
            raise ValueError(f"image: can be put on images of 1 or 3 channels only, not {channels}")
        return resized(self, channels, height, width)


@lru_cache(maxsize=4)  # a trigger asks for it for every batch
def resized(picture: Picture, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """See `Picture.resized`. Colours are weighted by their opacity, so that hidden ones do not show at the edges."""
    pixels = picture.pixels.float() / 255
    color, opacity = pixels[:3], pixels[3:]
    weighted = resize_pixels(torch.cat([color * opacity, opacity])[None], (4, height, width))[0]
    color, opacity = weighted[:3] / weighted[3:].clamp(min=1e-6), weighted[3:]
    return resize_pixels(color[None], (channels, height, width))[0], opacity


def resize_pixels(pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Images [N, C, H, W] in [0, 1] as [N, *shape], with bilinear interpolation."""
    channels, height, width = shape
    if pixels.shape[1] == 3 and channels == 1:
        pixels = torch.einsum("nchw,c->nhw", pixels, pixels.new_tensor(LUMA)).unsqueeze(1)
    if pixels.shape[2:] != (height, width):
        pixels = functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return pixels.clamp(0, 1).expand(-1, channels, -1, -1)
