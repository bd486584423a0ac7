"""Disks that are full, folders that cannot be written to, and folders that are taken away: one line, nothing half."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

import trustml_cli.results.recorder
from tests.faults.whole import assert_whole, leftovers, metrics_below, sized
from tests.helpers import Cli, facts, newest
from trustml_cli.cli.main import require_current_folder
from trustml_cli.data.dataset import Dataset
from trustml_cli.system.errors import InputError
from trustml_cli.training.gradient import GradientTrainer

TRAIN = ["task=train", "trainer=smoke", "model=logistic"]
FULL = pytest.mark.faults

needs_root = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.getuid() != 0 or shutil.which("mount") is None,
    reason="only root on Linux can make a disk of a given size",
)


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own at `folder`."""
    folder.mkdir()
    answer = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=False)
    if answer.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def changed_to(folder: Path, option: str) -> None:
    """The disk at `folder` with another size, or read-only."""
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Words for a data set that is decoded into the cache: 19 kB of pixels."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for number, name in enumerate(("dark", "bright")):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = (random.integers(0, 60, (14, 14, 3)) + 150 * number).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return ["dataset=image_folder", f"dataset.root={tmp_path / 'pictures'}", "dataset.size=14"]


def assert_one_line(answer: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> str:
    assert answer.returncode == exit_code, answer.stderr
    (line,) = answer.stderr.splitlines()
    assert line.startswith("trustml: error: ")
    for word in words:
        assert word in line
    return line


def fill_up(trustml: Cli, tmp_path: Path, pictures: list[str], size: int, model: str = "logistic") -> str:
    """A run on a disk of so many kB, which is too small, and again on the same one with room; the file that failed."""
    words = [*TRAIN, *pictures, f"model={model}"]
    with disk(tmp_path / "disk", f"{size}k") as full:
        places = {"TRUSTML_CACHE_DIR": str(full / "cache")}
        answer = trustml(*words, f"output_dir={full}/out", env=places)
        line = assert_one_line(answer, 1, "No space left on device; make room there", "output_dir and cache_dir")
        assert_whole(full)
        assert leftovers(full) == []
        runs = list(full.glob("out/train/*/run.json"))
        for run in runs:
            known = json.loads(run.read_text())
            assert known["status"] == "failed"
            assert known["exit_code"] == 1
            assert "No space left on device" in known["error"]
        changed_to(full, "size=64m")
        again = trustml(*words, f"output_dir={full}/again", env=places)
        assert again.returncode == 0, again.stderr
        assert "is damaged" not in again.stdout + again.stderr
        assert_whole(full)
        usual = trustml(*words, "output_dir=usual")
        assert usual.returncode == 0, usual.stderr
        pandas.testing.assert_frame_equal(metrics_below(full / "again"), metrics_below(tmp_path / "usual"))
        culprit = line.removeprefix("trustml: error: ").partition(": ")[0]
        return f"{Path(culprit).parent.name}/{Path(culprit).name}" if runs else "before the run began"


CULPRITS = [
    (8, "logistic", "before the run began"),
    (24, "logistic", "run.json"),
    (52, "logistic", "data/image_folder-pictures"),
    (140, "mlp", "models/"),
    (132, "logistic", "plots/"),
    (240, "logistic", "report.html"),
]


@needs_root
@pytest.mark.parametrize(
    ("size", "model", "culprit"),
    [pytest.param(*case, marks=() if case[2] == "models/" else FULL) for case in CULPRITS],
)
def test_a_full_disk_is_one_line_and_poisons_no_cache(
    trustml: Cli, tmp_path: Path, pictures: list[str], size: int, model: str, culprit: str
) -> None:
    assert culprit in fill_up(trustml, tmp_path, pictures, size, model)


@needs_root
@FULL
@pytest.mark.parametrize("size", sized(range(4, 284, 8), range(4, 284, 56)))
def test_a_disk_that_is_full_at_any_moment(trustml: Cli, tmp_path: Path, pictures: list[str], size: int) -> None:
    print(size, fill_up(trustml, tmp_path, pictures, size))  # noqa: T201


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may be larger; what a quota does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores the signal, and gets EFBIG
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("model", "culprit"), [("mlp", "cache/models/"), pytest.param("logistic", "plots/", marks=FULL)]
)
def test_a_file_that_may_not_be_so_large_is_one_line(
    trustml: Cli, tmp_path: Path, pictures: list[str], model: str, culprit: str
) -> None:
    words = ["task=train", "trainer=smoke", f"model={model}", *pictures[:2], "dataset.size=8"]
    places = {"TRUSTML_CACHE_DIR": str(tmp_path / "cache")}
    with files_up_to(14_000):
        answer = trustml(*words, env=places)
    assert_one_line(answer, 1, "File too large; make room there", culprit)
    assert_whole(tmp_path)
    assert leftovers(tmp_path) == []
    assert trustml(*words, env=places).returncode == 0


@needs_root
@FULL
def test_a_cache_that_cannot_be_written_to_is_read(trustml: Cli, tmp_path: Path, pictures: list[str]) -> None:
    with disk(tmp_path / "disk", "64m") as cache:
        places = {"TRUSTML_CACHE_DIR": str(cache / "cache")}
        assert trustml(*TRAIN, *pictures, "output_dir=before", env=places).returncode == 0
        changed_to(cache, "ro")
        after = trustml(*TRAIN, *pictures, "output_dir=after", env=places)
        assert after.returncode == 0, after.stderr
        assert "was trained before" in after.stdout
        pandas.testing.assert_frame_equal(metrics_below(tmp_path / "before"), metrics_below(tmp_path / "after"))
        another = trustml(*TRAIN, *pictures, "seed=1", env=places)
        line = assert_one_line(another, 2, f"cache_dir: {cache}/cache/models cannot be written to (Read-only file")
        assert "TRUSTML_CACHE_DIR" in line
        assert facts(newest(tmp_path / "outputs"))["status"] == "failed"


@needs_root
@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_an_output_directory_on_a_read_only_disk(trustml: Cli, tmp_path: Path, words: list[str]) -> None:
    with disk(tmp_path / "disk", "1m") as folder:
        changed_to(folder, "ro")
        answer = trustml(*words, *TRAIN, f"output_dir={folder}/out")
        assert_one_line(answer, 2, f"output_dir: {folder}/out", "Read-only file system; have it made writable")


@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_an_output_directory_that_is_a_file(trustml: Cli, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "taken").write_text("mine")
    answer = trustml(*words, *TRAIN, "output_dir=taken")
    assert_one_line(answer, 2, "output_dir: ", "taken", "; have it made writable, or take other places")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_cache_directory_that_is_a_file(trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    answer = trustml(*TRAIN, f"cache_dir={tmp_path}/taken")
    assert_one_line(answer, 2, f"cache_dir: {tmp_path}/taken/data cannot be written to")


@pytest.mark.faults
@pytest.mark.skipif(os.getuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
def test_folders_without_permission(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        powerless = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []
        return subprocess.run(
            [*powerless, sys.executable, "-m", "trustml_cli", *TRAIN, *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    answer = run(f"output_dir={closed}/out", f"cache_dir={tmp_path}/cache")
    assert_one_line(answer, 2, f"output_dir: {closed}/out", "Permission denied; have it made writable")
    answer = run("output_dir=out", f"cache_dir={closed}/cache")
    assert_one_line(answer, 2, f"cache_dir: {closed}/cache/data cannot be written to (Permission denied)")


@FULL
def test_a_command_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    answer = subprocess.run(
        ["sh", "-c", f'rmdir ../gone && exec "{sys.executable}" -m trustml_cli task=train'],
        cwd=tmp_path / "gone", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert_one_line(answer, 2, "the current directory has been deleted; change to another one")


def test_a_current_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    require_current_folder()
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="the current directory has been deleted; change to another one"):
        require_current_folder()


def test_a_run_directory_that_is_removed_while_it_is_written(
    trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = trustml_cli.results.recorder.write_atomically

    def remove(path: Path, *how: object) -> None:
        write(path, *how)  # type: ignore[arg-type]
        if path.name == "history.csv":
            shutil.rmtree(path.parent)

    monkeypatch.setattr(trustml_cli.results.recorder, "write_atomically", remove)
    answer = trustml(*TRAIN)
    assert_one_line(answer, 1, "outputs/train/", "No such file or directory; somebody has removed it; begin again")
    assert list(tmp_path.glob("outputs/train/*")) == []
    assert leftovers(tmp_path) == []


def test_a_cache_that_is_removed_while_it_is_written(
    trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"TRUSTML_CACHE_DIR": str(tmp_path / "cache")}
    fit = GradientTrainer.fit

    def remove(trainer: GradientTrainer, network: torch.nn.Module, data: Dataset, *more: Any) -> None:
        fit(trainer, network, data, *more)
        assert len(list(tmp_path.glob("cache/models/.*"))) == 1, "it is about to be written"
        shutil.rmtree(tmp_path / "cache")

    with monkeypatch.context() as patches:
        patches.setattr(GradientTrainer, "fit", remove)
        answer = trustml(*TRAIN, env=places)
    assert_one_line(answer, 1, f"{tmp_path}/cache/models/", "somebody has removed it; begin again")
    assert facts(newest(tmp_path))["status"] == "failed"
    assert leftovers(tmp_path) == []
    assert trustml(*TRAIN, env=places).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("how", ["trustml", pytest.param("trustml_process", marks=FULL)])
def test_a_log_that_cannot_be_written_ends_no_run(how: str, request: pytest.FixtureRequest) -> None:
    words = ["task=fgsm", "trainer=smoke", "model=logistic", "task.epsilon=0", "task.check_images=0"]
    answer = request.getfixturevalue(how)(*words, "hydra.job_logging.handlers.file.filename=/dev/full")
    assert (answer.returncode, answer.stderr) == (0, "")
