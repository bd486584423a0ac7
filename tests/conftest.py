"""What all tests share: a cache of their own, a tiny data set, and the command line, as a subprocess or in this one."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.data.digits import Digits
from trustml_cli.hardware import Hardware, Precision
from trustml_cli.run import main
from trustml_cli.sweep import Ending

ROOT = Path(__file__).parent.parent
CPU = Hardware(torch.device("cpu"), Precision.fp32)


@pytest.fixture
def hardware() -> Hardware:
    return CPU


@pytest.fixture
def tiny_data() -> Dataset:
    """Two classes of 8×8 images that a linear model tells apart: dark and bright ones, with noise."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> InMemory:
        labels = torch.arange(count) % 2
        noise = torch.randint(0, 60, (count, 1, 8, 8), generator=random)
        images = (noise + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
        return InMemory(images, labels)

    return Dataset(split(64), split(32), ("dark", "bright"), fingerprint="tiny", source="made up")


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all commands of a session: what one test trained, the next finds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def digits(cache_dir: Path) -> Dataset:
    """The embedded digits."""
    return Digits(test_fraction=0.25, limit=None, cache_dir=cache_dir).load()


@pytest.fixture
def trustml(tmp_path: Path, cache_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the real command line in an empty directory."""

    def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
        environment = {**inherited, "TRUSTML_CACHE_DIR": str(cache_dir), **(env or {})}
        return subprocess.run(
            [sys.executable, "-m", "trustml_cli", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def trustml_here(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs the command line in this process: the same answers in a tenth of the time, where many are wanted."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["trustml", *words])
        monkeypatch.setattr(Ending, "exit_code", 0)
        monkeypatch.setattr(Ending, "sweep", None)
        for name, value in {"TRUSTML_CACHE_DIR": str(cache_dir), "HYDRA_FULL_ERROR": "0", **(env or {})}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(list(words), int(end.value.code or 0), out, err)

    yield run
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where the real data sets lie; tests that use it are marked `data`."""
    folder = os.environ.get("TRUSTML_DATA_DIR")
    if not folder:
        pytest.skip("TRUSTML_DATA_DIR is not set")
    return Path(folder)
