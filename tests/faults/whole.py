"""How many cases are run, what it means for files to be whole, and metrics without what a clock says."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from tests import helpers
from tests.helpers import Reader
from trustml_cli.config.groups import config_folder
from trustml_cli.config.instantiate import build
from trustml_cli.config.trust import Permissions
from trustml_cli.system.files import verified_checksums

T = TypeVar("T")

TIMES = [*helpers.TIMES, "run"]


def sized(full: T, short: T) -> T:
    """`full`, or `short` where the environment says TRUSTML_FAULTS=short: fewer kills, cases and jobs of each kind."""
    return short if os.environ.get("TRUSTML_FAULTS") == "short" else full


def reader(name: str, folder: Path, **keys: Any) -> Reader:
    """The reader of a data set as its YAML has it, with some keys set; what it downloads or keeps lies in `folder`."""
    node = OmegaConf.load(config_folder() / "dataset" / f"{name}.yaml")
    own = {"data_dir": str(folder)} if "data_dir" in node else {}
    built = build(OmegaConf.merge(node, own, keys), "dataset", Permissions(folders=[Path("/")]))
    return Reader(built, folder / "cache")


@contextmanager
def memory_up_to(megabytes: int) -> Iterator[None]:
    """Fails if so much memory was held at any time inside; tells nothing where the system cannot."""
    peak, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        peak.write_text("5")  # Linux: the peak is what is held now
    except OSError:
        yield
        return

    def held(which: str) -> float:
        return int(status.read_text().partition(f"{which}:")[2].split()[0]) / 1024

    before = held("VmRSS")
    yield
    assert held("VmHWM") - before < megabytes


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
