"""Single pictures of every kind: each becomes what a viewer shows, or is refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trustml_cli.data.pictures import Decoder
from trustml_cli.system.errors import InputError

LEVELS = np.array([[0, 100, 255]], dtype=np.uint8)
DEEP = LEVELS.astype(np.uint16) * 257  # the same in 16 bits
COLOUR = np.stack([LEVELS, LEVELS[:, ::-1], LEVELS], -1)


def saved(picture, kind="PNG", **options):
    """A file's bytes, of a picture or of its pixels."""
    file = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(file, kind, **options)
    return file.getvalue()


def png(color_type, row, chunks=b""):
    """A PNG of 3×1 pixels with 16 bits per channel, which Pillow cannot write in colour."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, 16, color_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row.astype(">u2").tobytes()))
    return b"\x89PNG\r\n\x1a\n" + header + (chunk(*chunks) if chunks else b"") + pixels + chunk(b"IEND", b"")


def tiff12():
    """A TIFF of 3×1 pixels with 12 bits, 0, 1606 and 4095: two levels in three bytes."""
    pixels = bytes([0, 0x06, 0x46, 0xFF, 0xF0])
    tags = {256: 3, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def palette():
    picture = Image.new("P", (3, 1))
    picture.putpalette([0, 0, 0, 100, 100, 100, 255, 255, 255])
    picture.putdata([0, 1, 2])
    return picture


GREY = LEVELS[0].tolist()
KINDS = {  # file → its pixels in grey on a background of level 51
    "16 bits": (saved(DEEP), GREY),
    "16 bits, TIFF": (saved(DEEP, "TIFF"), GREY),
    "16 bits, TIFF, compressed": (saved(DEEP, "TIFF", compression="tiff_lzw"), GREY),
    "16 bits, TIFF, big-endian": (saved(Image.frombytes("I;16B", (3, 1), DEEP.astype(">u2").tobytes()), "TIFF"), GREY),
    "16 bits, TIFF, white is zero": (saved(DEEP, "TIFF", tiffinfo={262: 0}), [255, 155, 0]),
    "12 bits, TIFF": (tiff12(), GREY),
    "16 bits, JPEG 2000": (saved(DEEP, "JPEG2000"), GREY),
    "12 bits, PGM": (b"P5 3 1 4095\n" + np.array([0, 1606, 4095], dtype=">u2").tobytes(), GREY),
    "16 bits, one level transparent": (png(0, DEEP, (b"tRNS", b"\0\0")), [51, 100, 255]),
    "16 bits and alpha": (png(4, np.stack([DEEP, DEEP * 0 + 65535], -1)), GREY),
    "16 bits of colour": (png(2, np.repeat(DEEP[..., None], 3, -1)), GREY),
    "floats": (saved((LEVELS / 255).astype(np.float32), "TIFF"), GREY),
    "alpha alone": (saved(np.stack([LEVELS * 0] * 3 + [LEVELS], -1)), [51, 31, 0]),
    "grey with alpha": (saved(Image.fromarray(np.stack([LEVELS, LEVELS], -1), "LA")), [51, 70, 255]),
    "hidden colour": (saved(np.array([[[255, 255, 255, 0], [0, 0, 0, 255]]], dtype=np.uint8)), [51, 0]),
    "palette": (saved(palette()), GREY),
    "palette, transparent": (saved(palette(), transparency=1), [0, 51, 255]),
    "GIF, transparent": (saved(palette(), "GIF", transparency=1), [0, 51, 255]),
    "1 bit": (saved(Image.fromarray(LEVELS > 99)), [0, 255, 255]),
    "CMYK": (saved(Image.fromarray(np.stack([LEVELS * 0] * 3 + [255 - LEVELS], -1), "CMYK"), "TIFF"), GREY),
    "CMYK, JPEG": (saved(Image.new("CMYK", (3, 1), (0, 0, 0, 155)), "JPEG", quality=100), [100] * 3),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_pixels_becomes_the_levels_that_a_viewer_shows(kind, channels):
    content, expected = KINDS[kind]
    decoded = Decoder(size=None, channels=channels, background=[0.2])(content, kind)
    assert decoded.pixels.shape == (channels, 1, len(expected))
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= 1
    assert ("deep" in decoded.remarks) == kind.startswith(("12", "16", "floats"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_or_pages_the_first_is_read(kind):
    picture, other = Image.fromarray(COLOUR), Image.new("RGB", (3, 1))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(picture, kind, save_all=True, append_images=[other], **options)
    decoded = Decoder(size=None, channels=3, background=[1])(content, "x")
    assert decoded.pixels[:, 0, 0].tolist() == [0, 255, 0]
    assert decoded.remarks == ("frames",)


REFUSED = {
    "floats up to 255": (saved(LEVELS.astype(np.float32), "TIFF"), "holds floats from 0 to 255; scale them to 0 to 1"),
    "not a number": (saved(np.array([[0.5, np.nan]], dtype=np.float32), "TIFF"), "holds floats from nan to nan"),
    "32 bits": (saved(LEVELS.astype(np.int32), "TIFF"), "holds signed integers or 32 bits, of unknown range"),
    "16 bits, one colour transparent": (png(2, np.stack([DEEP] * 3, -1), (b"tRNS", bytes(6))), "has a transparent"),
    "nothing": (b"", "it is empty"),
    "text": (b"hello", "its format, or its kind of pixels, is none that Pillow reads"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_pixels_of_unknown_range_are_refused_by_name(content, words):
    with pytest.raises(InputError, match=rf"dataset: mine\.tif cannot be read as an image \({words}"):
        Decoder(size=None, channels=1, background=[1])(content, "mine.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("pixels", "kind"), [(LEVELS, "PNG"), (DEEP, "PNG"), (LEVELS, "JPEG")], ids=["8", "16", "JPEG"]
)
def test_a_picture_is_turned_and_mirrored_as_its_exif_says(orientation, pixels, kind):
    picture = Image.fromarray(np.kron(pixels, np.ones((8, 8), dtype=pixels.dtype)))
    exif = picture.getexif()
    exif[0x0112] = orientation
    content = saved(picture, kind, exif=exif)
    upright = Decoder(size=None, channels=1, background=[1])(content, "camera").pixels[0, 4::8, 4::8].astype(int)
    mirrored = orientation in (2, 3, 7, 8)
    expected = LEVELS[:, ::-1] if mirrored else LEVELS
    assert np.abs(upright - (expected.T if orientation > 4 else expected)).max() <= 2


@pytest.mark.parametrize("background", [[], [0.1, 0.2], [1.5], [float("nan")]])
def test_a_background_is_a_level_or_a_colour(background):
    with pytest.raises(ValueError, match=r"background: must be 1 value or 3 .* in \[0, 1\]"):
        Decoder(size=4, channels=3, background=background)
