"""Damaged files: what is ours is noticed by its checksum and made again, what is the user's is named."""

import gzip
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.faults.whole import reader, sized
from tests.helpers import Cli
from trustml_cli.config.messages import quoted
from trustml_cli.models.checkpoint import read_states
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import make_once

RUN = ["task=train", "trainer=smoke", "model=logistic"]
OFFLINE = {"http_proxy": "http://localhost:1", "https_proxy": "http://localhost:1"}
CONTENT = {"weights": bytes(range(256)) * 3, "facts.json": b'{"epochs": 3}\n', "empty": b""}


def flip(path: Path, place: int, how: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= how
    path.write_bytes(content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(
    file=st.sampled_from(["weights", "facts.json", "checksums.json"]),
    place=st.integers(0, 767),
    how=st.integers(1, 255),
)
def test_any_byte_of_a_folder_may_flip(tmp_path: Path, file: str, place: int, how: int) -> None:
    def make(folder: Path) -> None:
        for name, content in CONTENT.items():
            (folder / name).write_bytes(content)

    checksums = make_once(tmp_path / "folder", make)
    flip(tmp_path / "folder" / file, place, how)
    assert make_once(tmp_path / "folder", make) == checksums
    assert {name: (tmp_path / "folder" / name).read_bytes() for name in CONTENT} == CONTENT


def images(root: Path, ending: str = "png") -> None:
    """Two classes of four images that can be told apart."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for level, name in enumerate(("dark", "bright")):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(100 * level, 100 * level + 100, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.{ending}")


def cached_files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("*/*/*") if path.is_file())


def flips(trustml: Cli, tmp_path: Path, places: list[float]) -> None:
    """Run, damage each file of the cache at each of `places` (shares of its length), and run again each time."""
    images(tmp_path / "images")
    cache = tmp_path / "cache"
    words = [*RUN, "dataset=image_folder", "dataset.root=images", "dataset.size=8"]

    def measured() -> tuple[pandas.DataFrame, str]:
        answer = trustml(*words, env={"TRUSTML_CACHE_DIR": str(cache)})
        assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
        (metrics,) = (tmp_path / "outputs" / "train").glob("*/metrics.csv")
        table = pandas.read_csv(metrics, dtype=str).drop(columns=["seconds", "images_per_second"])
        shutil.rmtree(tmp_path / "outputs")
        return table, answer.stdout

    before, _ = measured()
    names = {path.name for path in cached_files(cache)}
    assert names == {
        "checksums.json", "model.json", "model.safetensors", "origin.json", "remarks.npy", "test_images.npy",
        "train_images.npy",
    }  # fmt: skip
    for path in cached_files(cache):
        whole = path.read_bytes()
        for place in places:
            flip(path, int(place * (len(whole) - 1)))
            after, told = measured()
            assert f"{path.parent} is damaged" in told
            pandas.testing.assert_frame_equal(before, after)
            if path.suffix in (".npy", ".safetensors"):
                assert path.read_bytes() == whole
            if len(places) > 1:
                assert "is damaged" not in measured()[1]


@pytest.mark.faults
def test_a_byte_flipped_anywhere_in_the_cache_is_noticed(trustml: Cli, tmp_path: Path) -> None:
    flips(trustml, tmp_path, sized([0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1], [0.5]))


# The user's files


def idx(folder: Path) -> None:
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, *pixels.shape) + pixels.tobytes())
        labels = np.arange(20, dtype=np.uint8) % 10
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 20) + labels.tobytes())


def parquet(folder: Path) -> None:
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images(folder / "images")
    rows = [{"bytes": path.read_bytes(), "path": None} for path in sorted(folder.glob("images/train/*/*"))]
    for split in ("train", "test"):
        table = arrow.table({"img": rows, "label": [index // 4 for index in range(8)]})
        files.write_table(table, folder / f"{split}.parquet")


def table(folder: Path) -> None:
    people = [f"{20 + row},{'fm'[row % 2]},{'no' if row % 3 else 'yes'},{row % 7}" for row in range(60)]
    (folder / "people.csv").write_text("\n".join(["age,sex,hired,children", *people]))


def checkpoint(folder: Path) -> None:
    from safetensors.torch import save_file

    weights = {"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}
    save_file(weights, folder / "weights.safetensors")
    torch.save(weights, folder / "weights.pt")


def mnist(folder: Path) -> None:
    idx(folder / "MNIST" / "raw")


def photographs(folder: Path) -> None:
    images(folder / "photographs", "jpg")


def packed(folder: Path) -> None:
    """MNIST as it is downloaded, with nothing unpacked beside it."""
    mnist(folder)
    for path in (folder / "MNIST" / "raw").iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


PEOPLE = {"path": "people.csv", "label": "hired", "positive": "yes", "sensitive": ["sex"]}
IMAGES = {"root": "photographs", "size": 8}
PARQUET = {"train": "train.parquet", "test": "test.parquet"}
Files = Callable[[Path], None]
TRUNCATED: dict[str, tuple[Files, str, dict[str, Any]]] = {
    "MNIST/raw/train-images-idx3-ubyte": (mnist, "mnist", {}),
    "MNIST/raw/t10k-labels-idx1-ubyte": (mnist, "mnist", {}),
    "MNIST/raw/train-images-idx3-ubyte.gz": (packed, "mnist", {}),
    "train.parquet": (parquet, "parquet", PARQUET),
    "photographs/train/dark/2.jpg": (photographs, "image_folder", IMAGES),
    "people.csv": (table, "csv", PEOPLE),
    "weights.safetensors": (checkpoint, "", {}),
    "weights.pt": (checkpoint, "", {}),
}


def cut(name: str, content: bytes) -> list[bytes]:
    """What is left of a file: nothing, half, all but its end."""
    lengths = [0, len(content) // 2, len(content) - 20]
    if name.endswith(".csv"):  # which ends in the second cell of a row then
        lengths = [content.rfind(b"\n", 0, length) + 4 if length > 12 else length for length in lengths]
    return [content[:length] for length in lengths]


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in OFFLINE.items():
        monkeypatch.setenv(variable, value)
    make, dataset, keys = TRUNCATED[name]
    make(tmp_path)
    read = reader(dataset, Path(), **keys).load if dataset else partial(read_states, Path(name))
    whole = (tmp_path / name).read_bytes()
    for left in cut(name, whole):
        (tmp_path / name).write_bytes(left)
        with pytest.raises((InputError, ValueError), match=Path(name).name if name.endswith(".gz") else name):
            read()
    (tmp_path / name).write_bytes(whole)
    if not name.endswith(".gz"):  # which it takes the other three for
        assert read()


@pytest.mark.faults
@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file_is_one_line(name: str, trustml: Cli, tmp_path: Path) -> None:
    make, dataset, keys = TRUNCATED[name]
    make(tmp_path)
    words = [f"model.checkpoint={name}"] if not dataset else [f"dataset={dataset}", "data_dir=."]
    words += [f"dataset.{key}={quoted(value) if isinstance(value, str) else value}" for key, value in keys.items()]
    words += ["model=table_mlp"] if dataset == "csv" else []
    whole = (tmp_path / name).read_bytes()
    for left in cut(name, whole):
        (tmp_path / name).write_bytes(left)
        answer = trustml(*RUN, *words, env=OFFLINE)
        assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), (len(left), answer.stderr)
        assert (Path(name).name if name.endswith(".gz") else name) in answer.stderr, (len(left), answer.stderr)
    (tmp_path / name).write_bytes(whole)
    if not name.endswith(".gz"):
        answer = trustml(*RUN, *words)
        assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr


@pytest.mark.faults
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=sized(300, 100))
@given(
    name=st.sampled_from(["weights.pt", "weights.safetensors"]), place=st.integers(0, 5000), how=st.binary(max_size=9)
)
def test_damaged_weights_are_read_or_named(tmp_path: Path, name: str, place: int, how: bytes) -> None:
    checkpoint(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:place] + how + whole[place + len(how) :])
    with suppress(ValueError):  # and nothing else
        read_states(tmp_path / name)


@pytest.mark.faults
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=sized(500, 100))
@given(ending=st.sampled_from(["jpg", "png", "gif", "bmp", "tiff", "webp", "16.png", "16.tiff"]), data=st.data())
def test_a_damaged_image_is_decoded_or_named(tmp_path: Path, ending: str, data: st.DataObject) -> None:
    from trustml_cli.data.pictures import Decoder

    path = tmp_path / f"picture.{ending}"
    random = np.random.default_rng(0)
    deep, colour = (random.integers(0, 2**16, (16, 16), np.uint16), random.integers(0, 256, (16, 16, 3), np.uint8))
    Image.fromarray(deep if "16" in ending else colour).save(path)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:place] + data.draw(st.binary(max_size=9)) + whole[place + data.draw(st.integers(0, 20)) :])
    with suppress(InputError):  # and nothing else
        assert Decoder(size=8, channels=3, background=[1])(path, str(path)).pixels.shape == (3, 8, 8)
