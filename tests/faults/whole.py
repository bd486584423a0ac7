"""What it means for files to be whole, and metrics without what a clock says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
from PIL import Image
from safetensors.torch import load_file

from trustml_cli.files import verified_checksums

TIMES = ["seconds", "images_per_second", "run"]


def read_table(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert len({len(row) for row in pandas.read_csv(path).to_numpy()}) <= 1


def read_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def read_page(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


READERS: dict[str, Callable[[Path], object]] = {
    ".csv": read_table,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".png": read_picture,
    ".html": read_page,
    ".safetensors": load_file,
    ".npy": np.load,
}


def files_below(folder: Path) -> list[Path]:
    """Every file, but for what is hidden: partial files, and Hydra's own."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def assert_whole(*folders: Path) -> None:
    """Every table, JSON, picture, page and checkpoint can be read, and cached folders match their checksums."""
    for path in (path for folder in folders for path in files_below(folder)):
        if path.name == "run.json" and not path.stat().st_size:
            continue  # the claim on a directory, before there is anything to say
        READERS.get(path.suffix, lambda path: None)(path)
        if path.name == "checksums.json":
            assert verified_checksums(path.parent) is not None


def leftovers(folder: Path) -> list[Path]:
    """Partial files and folders."""
    return sorted(folder.rglob(".*-????????*"))


def metrics_below(folder: Path, name: str = "metrics.csv") -> pandas.DataFrame:
    """The table of the one run (or sweep) below `folder` that has it, without times."""
    (path,) = folder.rglob(name)
    return pandas.read_csv(path).drop(columns=TIMES, errors="ignore")
