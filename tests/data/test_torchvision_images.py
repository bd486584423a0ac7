"""Data sets of torchvision by name, in torchvision's layout: what the files of each kind become."""

import csv
import inspect
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from tests.configs import choice
from tests.helpers import Cli
from trustml_cli.config.instantiate import build
from trustml_cli.config.trust import Permissions
from trustml_cli.data.dataset import Dataset
from trustml_cli.data.torchvision_images import LAYOUTS, SIGNS
from trustml_cli.system.errors import InputError


def load(folder: Path, name: str, **changes: Any) -> Dataset:
    node = choice("dataset", "torchvision", name=name, data_dir=str(folder / "data"), **changes)
    source = build(node, "dataset", Permissions(folders=[folder]))
    found: Dataset = source.load(folder / "cache")
    return found


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    for module in ("mnist", "gtsrb", "svhn", "eurosat"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", refuse, raising=False)


def write_idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = np.array(values.shape, dtype=">i4").tobytes()
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes())


def write_emnist(folder: Path, split: str, labels: list[int]) -> np.ndarray[Any, Any]:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28))
    for part in ("train", "test"):
        start = folder / "EMNIST" / "raw" / f"emnist-{split}-{part}"
        write_idx(start.with_name(f"{start.name}-images-idx3-ubyte"), images)
        write_idx(start.with_name(f"{start.name}-labels-idx1-ubyte"), np.array(labels))
    return images


def write_gtsrb(folder: Path) -> None:
    """An image of each sign, of several sizes, in torchvision's layout: folders of ppm files, a table for the test."""
    base = folder / "gtsrb"
    for number in range(43):
        training = base / "GTSRB" / "Training" / f"{number:05d}"
        training.mkdir(parents=True)
        Image.new("RGB", (20 + number, 30), (number, 0, 255)).save(training / "00000.ppm")
    test = base / "GTSRB" / "Final_Test" / "Images"
    test.mkdir(parents=True)
    Image.new("RGB", (25, 25), "blue").save(test / "00000.ppm")
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["Filename", "ClassId"], delimiter=";")
        table.writeheader()
        table.writerow({"Filename": "00000.ppm", "ClassId": 38})


def test_letters_stand_upright_and_are_numbered_from_a(tmp_path: Path) -> None:
    stored = write_emnist(tmp_path / "data", "letters", [1, 26, 3])
    data = load(tmp_path, "EMNIST-letters")
    assert data.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 25, 2]
    inputs, _ = next(data.train.stream(torch.arange(3), 3))
    assert inputs.dtype == torch.uint8
    assert torch.equal(inputs[:, 0], torch.from_numpy(stored.astype(np.uint8)).transpose(1, 2))


def test_signs_have_names_and_are_brought_to_one_size(tmp_path: Path) -> None:
    write_gtsrb(tmp_path / "data")
    data = load(tmp_path, "GTSRB", size=8)
    assert data.shape == (3, 8, 8)
    assert data.train.labels.tolist() == list(range(43))
    assert (data.classes[14], data.classes[data.test.labels[0]]) == ("stop", "keep right")
    inputs, _ = next(data.train.stream(torch.arange(43), 43))
    assert inputs.amax((2, 3)).tolist() == [[number, 0, 255] for number in range(43)]
    with pytest.raises(InputError, match=r"set dataset\.size=PIXELS to bring all to one size$"):
        load(tmp_path, "GTSRB")


def test_signs_that_are_not_all_there_are_refused_for_their_numbers_would_shift(tmp_path: Path) -> None:
    write_gtsrb(tmp_path / "data")
    rmtree(tmp_path / "data" / "gtsrb" / "GTSRB" / "Training" / "00003")
    with pytest.raises(InputError, match=r"^dataset: GTSRB in .* is incomplete: 42 of 43 classes have training images"):
        load(tmp_path, "GTSRB", size=8)


def test_where_there_is_one_split_a_share_is_held_out(tmp_path: Path) -> None:
    for name, count in (("Forest", 6), ("River", 4)):
        folder = tmp_path / "data" / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    data = load(tmp_path, "EuroSAT", test_fraction=0.3)
    assert (len(data.train), len(data.test), data.classes) == (7, 3, ("Forest", "River"))
    assert torch.cat([data.train.labels, data.test.labels]).bincount().tolist() == [6, 4]
    assert load(tmp_path, "EuroSAT", test_fraction=0.5).fingerprint != data.fingerprint


def test_house_numbers_are_read_from_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)  # of the published files
    (tmp_path / "data").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / "data" / f"{split}_32x32.mat", {"X": pixels, "y": np.arange(1, 11)[:, None]})
    data = load(tmp_path, "SVHN")
    assert data.test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    inputs, _ = next(data.test.stream(torch.arange(10), 10))
    assert torch.equal(inputs, torch.from_numpy(pixels).permute(3, 2, 0, 1))


def test_every_name_is_a_data_set_of_torchvision_that_takes_these_words() -> None:
    assert len(LAYOUTS) > 25
    assert len(set(SIGNS)) == 43
    for name, layout in LAYOUTS.items():
        taken = inspect.signature(getattr(datasets, layout.name or name).__init__).parameters
        for words in (layout.train, layout.test or {}):
            assert words.keys() <= taken.keys() or "kwargs" in taken, name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gtsrb", "dataset.name: no data set 'gtsrb' of torchvision; did you mean GTSRB?"),
        ("CocoDetection", "dataset.name: no data set 'CocoDetection' of torchvision; there are Caltech101, "),
        ("CIFAR10", "dataset.name: CIFAR10 is dataset=cifar10 here"),
        ("SVHN", "dataset: SVHN (data/t[er]*_32x32.mat) is not there, and could not be downloaded ("),
        ("GTSRB", "dataset: GTSRB (data/gtsrb/**/*) is not there, and could not be downloaded (no network)"),
    ],
)
def test_what_cannot_be_read_is_named(trustml: Cli, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.svhn.download_url", lambda *_, **__: None)
    answer = trustml("task=train", "dataset=torchvision", f"dataset.name={name}", "data_dir=data")
    assert answer.returncode == 2
    assert f"trustml: error: {message}" in answer.stderr


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_gtsrb(tmp_path / "data")
    (tmp_path / "data" / "gtsrb" / "GTSRB" / "Training" / "00014" / "00000.ppm").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"^dataset: GTSRB train image 14 cannot be read \("):
        load(tmp_path, "GTSRB", size=8)
