"""Readers from their real YAML, and encoded pictures to feed them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.helpers import Reader
from trustml_cli.config.groups import config_folder
from trustml_cli.config.instantiate import build
from trustml_cli.config.trust import Permissions

ANYWHERE = Permissions(folders=[Path("/")])  # a test's own folders are as if they had been typed


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Reader]:
    """Builds the reader of a dataset choice; data_dir and the cache lie in the test's own folder."""

    def make(choice: str, **keys: Any) -> Reader:
        node = OmegaConf.load(config_folder() / "dataset" / f"{choice}.yaml")
        own = {"data_dir": tmp_path} if "data_dir" in node else {}
        return Reader(build(OmegaConf.merge(node, own, keys), "dataset", ANYWHERE), tmp_path / "cache")

    return make


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """A picture file's bytes: of one colour (or grey level), or of the pixels in an array."""

    def make(content: Any, width: int = 4, height: int = 4, kind: str = "PNG") -> bytes:
        if isinstance(content, np.ndarray):
            picture = Image.fromarray(content)
        else:
            picture = Image.new("L" if isinstance(content, int) else "RGB", (width, height), content)
        file = io.BytesIO()
        picture.save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture
def flip_byte() -> Callable[[Path], None]:
    """Inverts a file's last byte, as a failing disk would."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 0xFF
        path.write_bytes(content)

    return flip
