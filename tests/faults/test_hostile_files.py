"""Weights, archives and images from strangers: none runs code, writes elsewhere or takes memory that it has not."""

import json
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.faults.images import folder_of_images
from tests.faults.whole import memory_up_to
from tests.helpers import Cli
from trustml_cli.models.checkpoint import read_states

RUN = ["trainer=smoke", "model=logistic"]
OFFLINE = {"http_proxy": "http://localhost:1", "https_proxy": "http://localhost:1"}


def header(content: dict[str, Any]) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def one_tensor(*shape: int, size: int) -> bytes:
    return header({"network.1.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        one_tensor(10**12, size=4 * 10**12),
        one_tensor(2**62, 4, size=0),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
    ],
    ids=["header of 2^63 bytes", "header of 99 MB", "tensor of 4 TB", "shape that overflows", "before the beginning"],
)
def test_sizes_that_no_file_has_are_refused_and_take_no_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "absurd.safetensors"
    path.write_bytes(content)
    with memory_up_to(50), pytest.raises(ValueError, match=r"absurd\.safetensors cannot be read"):
        read_states(path)


def test_weights_that_unpack_to_more_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "honest.pt")
    assert read_states(tmp_path / "honest.pt")[""]["w"].shape == (10**6,)
    packed = zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "honest.pt") as honest, packed:
        for name in honest.namelist():
            packed.writestr(name, honest.read(name))
    with pytest.raises(ValueError, match=r"bomb\.pt is not a weights-only file .*compressed"):
        read_states(tmp_path / "bomb.pt")


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch it_ran",)


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.bin", "weights.safetensors"])
@pytest.mark.parametrize("old_format", [False, True])
def test_a_checkpoint_runs_no_code_whatever_it_is_called(
    name: str, old_format: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Code()}, tmp_path / name, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(ValueError, match=f"{name} (is not a weights-only file|cannot be read)"):
        read_states(tmp_path / name)
    assert not (tmp_path / "it_ran").exists()


# Archives, images


def test_an_archive_that_is_not_the_published_one_is_never_unpacked(trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "payload").write_text("theirs")
    with tarfile.open(tmp_path / "data" / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "payload", "../outside")
    (tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b theirs")
    for dataset in ("cifar10", "mnist"):
        answer = trustml("task=train", f"dataset={dataset}", "data_dir=data", env=OFFLINE)
        assert answer.returncode == 2, answer.stderr
        assert "could not be downloaded" in answer.stderr
    assert not (tmp_path / "outside").exists()


def test_the_path_beside_a_parquet_image_is_neither_read_nor_written(trustml: Cli, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    Image.new("L", (8, 8)).save(tmp_path / "outside.png")
    content = (tmp_path / "outside.png").read_bytes()
    for name, image in (("none", None), ("whole", content)):
        rows = [{"bytes": image, "path": f"../{tmp_path.name}/{end}"} for end in ("outside.png", "made.png")] * 4
        table = arrow.table({"img": rows, "label": [0, 0, 1, 1] * 2})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    words = ["task=train", *RUN, "dataset=parquet", "dataset.size=8"]
    answer = trustml(*words, "dataset.train=none.parquet", "dataset.test=none.parquet")
    assert answer.returncode == 2
    assert "none.parquet row 0" in answer.stderr
    assert "leads out of the folder of this file" in answer.stderr
    answer = trustml(*words, "dataset.train=whole.parquet", "dataset.test=whole.parquet")
    assert answer.returncode == 0, answer.stderr
    assert not (tmp_path / "made.png").exists()
    assert (tmp_path / "outside.png").read_bytes() == content


def black(side: int) -> bytes:
    """A PNG of side×side black pixels, one bit each."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    rows = [packer.compress(bytes(1 + -(-side // 8))) for _ in range(side)]
    shape = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = b"".join([*rows, packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, pytest.param(50_000, marks=pytest.mark.faults)])
def test_an_image_bomb_is_refused_by_name(side: int, trustml: Cli, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "images", ["a", "b"])
    (tmp_path / "images" / "train" / "b" / "bomb.png").write_bytes(black(side))
    words = ["dataset=image_folder", "dataset.root=images", "dataset.size=8"]
    with memory_up_to(500):  # one bit a pixel is 300 MB at most
        answer = trustml("task=train", *RUN, *words)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "images/train/b/bomb.png" in answer.stderr
    answer = trustml("task=backdoor", *RUN, "trigger.image=images/train/b/bomb.png")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "trigger.image" in answer.stderr


def test_a_picture_that_is_a_program_is_no_picture(trustml: Cli, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "images", ["a", "b"])
    Image.new("L", (8, 8)).save(tmp_path / "program.eps")
    (tmp_path / "images" / "train" / "b" / "picture.png").write_bytes((tmp_path / "program.eps").read_bytes())
    answer = trustml("task=train", *RUN, "dataset=image_folder", "dataset.root=images", "dataset.size=8")
    assert answer.returncode == 2
    assert "images/train/b/picture.png cannot be read as an image" in answer.stderr
