"""Arrays that are decoded once, cached on disk, and memory-mapped from then on."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustml_cli.system.files import digest, make_once, write_json

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

LAYOUT = 1  # increase it when the stored format changes


def decoded(cache_dir: Path, name: str, origin: Any, decode: Callable[[], Arrays]) -> tuple[Arrays, str]:
    """The arrays returned by `decode`, from the cache if they are there, and a fingerprint of their content.

    `origin` is everything that the arrays depend on, as JSON-able values (files with size and time, pixel sizes). Its
    hash is part of the name of the cache folder.
    """
    folder = cache_dir / "data" / f"{name}-{digest([LAYOUT, origin])[:16]}"

    def make(partial: Path) -> None:
        log.info("decoding %s into %s", name, folder)
        for key, array in decode().items():
            save(partial / f"{key}.npy", np.ascontiguousarray(array))
        write_json(partial / "origin.json", origin)

    checksums = make_once(folder, make)
    contents = {file: checksum for file, checksum in checksums.items() if file.endswith(".npy")}
    # copy on write: tensors made from the arrays are writable, but the files are not changed
    arrays = {file.removesuffix(".npy"): np.load(folder / file, mmap_mode="c") for file in contents}
    return arrays, digest(contents)


def save(path: Path, array: NDArray[Any]) -> None:
    """Save like `np.save`, but with an error that tells when the disk is full."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
