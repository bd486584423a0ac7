"""What all tests share: one cache, a tiny data set, a handler's context, and the command line.

`trustml` runs a command in this process. `trustml_process` starts a real one, for tests of what only a process shows:
its start, its exit status, signals and locks between several.
"""

import gc
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path

import omegaconf
import pytest
import torch
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from sklearn.datasets import load_digits
from torch import nn

from tests.helpers import CPU, Cli, TrainedDigits, command
from trustml_cli.config.groups import config_folder
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.data.digits import Digits
from trustml_cli.plots import style
from trustml_cli.results.recorder import Recorder
from trustml_cli.system.hardware import Hardware, seed_everything, seeded
from trustml_cli.tasks.context import Context
from trustml_cli.training.store import ModelStore

ROOT = Path(__file__).parent.parent
BLANK = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")
"""A PNG file of one white pixel."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

torch.set_num_threads(1)  # pytest-xdist has a worker for each core
os.environ.update(ONE_THREAD)  # of the processes that tests start, too


COMMANDS = {"trustml", "trustml_process", "make_context", "sweep", "trained_digits"}
OTHERS = {"browser", "data", "e2e", "faults", "peers"}
RENDERED = {"browser", "data", "faults", "renders"}


def pytest_configure() -> None:
    """Importing what the tests need makes millions of objects and no garbage: it is not searched for meanwhile."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor are those objects searched again while tests run."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that run a command or a handler, or train, as `e2e`, and those marked as nothing as `unit`."""
    for item in items:
        if COMMANDS & set(getattr(item, "fixturenames", ())):
            item.add_marker("e2e")
        if not OTHERS & {mark.name for mark in item.iter_markers()}:
            item.add_marker("unit")
    items.sort(key=lambda item: "every_task" not in item.name)  # the longest begin first


@pytest.fixture(autouse=True)
def seed_each_test() -> None:
    """Random numbers that a test does not seed are the same in any order of the tests."""
    seed_everything(0)


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
    """One cache for all commands of all workers: what one test trained, the next finds; locks keep it whole."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trustml-cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def digits(cache_dir: Path) -> Dataset:
    """The embedded digits."""
    return Digits(test_fraction=0.25, limit=None).load(cache_dir)


@pytest.fixture(scope="session")
def trained_digits() -> TrainedDigits:
    """A small network trained on digits with noise, and 120 others that it reads right."""
    data = load_digits()
    x, y = torch.tensor(data.images / 16, dtype=torch.float)[:, None], torch.tensor(data.target)
    with seeded(0):
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(12):
            for batch in torch.randperm(1500).split(100):
                noisy = (x[batch] + 0.1 * torch.randn_like(x[batch])).clamp(0, 1)
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(noisy), y[batch]).backward()
                optimizer.step()
    model.eval().requires_grad_(False)
    right = 1500 + (model(x[1500:]).argmax(1) == y[1500:]).nonzero()[:120, 0]
    return model, x[right], y[right]


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., Context]:
    """What a handler is given: a run in an empty directory, with a store of its own."""

    def make(seed: int = 0, folder: str = "run", **choices: str) -> Context:
        record = Recorder(
            tmp_path / folder, {"task": "train", "dataset": "tiny", "model": "mlp", **choices}, seed, "", []
        )
        record.directory.mkdir()
        record.start()
        return Context(seed, CPU, ModelStore(tmp_path / "models"), record)

    return make


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[None]:
    """Our YAML files are read, and interpolations parsed, once for all commands of a worker: half of what one costs."""
    Plugins.instance()  # registers the kinds of sources
    files: type[ConfigSource] = SourcesRegistry.instance().resolve("file")
    read, ours = files.load_config, str(config_folder())
    known: dict[str, ConfigResult] = {}

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        if source.path != ours:
            return read(source, config_path)
        if config_path not in known:
            known[config_path] = read(source, config_path)
        return deepcopy(known[config_path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "load_config", load_config)
        patch.setattr("omegaconf.base.parse", cache(omegaconf.base.parse))
        yield


@pytest.fixture(autouse=True)
def pictures_left_blank(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which is half of what a command costs, but in tests with a mark of RENDERED.

    The sweep over every task, marked `faults`, renders what each draws. TRUSTML_RENDER=1 has all tests render.
    """
    renders = RENDERED & {mark.name for mark in request.node.iter_markers()}
    if not renders and "TRUSTML_RENDER" not in os.environ:
        monkeypatch.setattr(style, "save", lambda figure, path: path.write_bytes(BLANK))


@pytest.fixture
def trustml_process(tmp_path: Path, cache_dir: Path) -> Cli:
    """Runs the command line as a process of its own, in an empty directory."""

    def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
        environment = {**inherited, "TRUSTML_CACHE_DIR": str(cache_dir), **(env or {})}
        return subprocess.run(
            [sys.executable, "-m", "trustml_cli", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def trustml(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process, in an empty directory: the same answers in a tenth of the time."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        status = command(words, tmp_path, {"TRUSTML_CACHE_DIR": str(cache_dir), **(env or {})})
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(list(words), status, out, err)

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where the real data sets lie; tests that use it are marked `data`."""
    folder = os.environ.get("TRUSTML_DATA_DIR")
    if not folder:
        pytest.skip("TRUSTML_DATA_DIR is not set")
    return Path(folder)
