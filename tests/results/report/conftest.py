"""A sweep, the pages of it, and a browser to open them in: once for all tests of the folder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.helpers import command
from trustml_cli.results.aggregate import read_runs
from trustml_cli.results.report.page import write_comparison

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """A sweep over two seeds, each with two epsilons, and with one that cannot be."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ["task=fgsm", "model=logistic", "trainer=smoke", "seed=0,1", "task.epsilon=[0.05,0.1],-1"]
    assert command(["-m", *words, "task.check_images=0"], folder, {"TRUSTML_CACHE_DIR": str(cache_dir)}) == 2
    (found,) = (folder / "outputs" / "multirun").iterdir()
    return found


@pytest.fixture(scope="session")
def pages(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run, of the sweep, and of its runs side by side."""
    run = next(run for run in read_runs(sweep) if run.status == "completed")
    comparison = write_comparison([sweep], tmp_path_factory.mktemp("pages") / "comparison.html")
    return {"run": run.folder / "report.html", "sweep": sweep / "index.html", "comparison": comparison}


def without(what: str) -> NoReturn:
    """A machine need not have a browser, but the one that decides what lands must."""
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(what)
    pytest.fail(f"{what}; CI is set, so nothing is skipped")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    if CHROMIUM is None:
        without("there is no Chromium here; on Debian: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without("there is no playwright here; pip install '.[browser]'")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
