import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from trustml_cli.data import mnist
from trustml_cli.system.errors import InputError

PIXELS = {"train": bytes(range(12)), "t10k": bytes([255, 0, 7, 9])}  # three images and one image of 2×2
LABELS = {"train": bytes([3, 0, 9]), "t10k": bytes([4])}


def idx(content: bytes, *sizes: int) -> bytes:
    """Unsigned bytes in the IDX format, as the page of MNIST describes it."""
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + content


def write_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        count = len(LABELS[part])
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(PIXELS[part], count, 2, 2))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(LABELS[part], count))


def check(data) -> None:
    assert data.train.inputs.tolist() == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]], [[[8, 9], [10, 11]]]]
    assert data.train.labels.tolist() == [3, 0, 9]
    assert data.test.inputs.tolist() == [[[[255, 0], [7, 9]]]]
    assert data.test.labels.tolist() == [4]
    assert (data.shape, data.train.inputs.dtype) == ((1, 2, 2), torch.uint8)


@pytest.mark.parametrize(("choice", "folder", "seven"), [("mnist", "MNIST", "7"),
                                                         ("fashion_mnist", "FashionMNIST", "sneaker")])  # fmt: skip
def test_the_four_files_of_torchvisions_layout_are_read(source, tmp_path, choice, folder, seven):
    write_files(tmp_path / folder / "raw")
    data = source(choice).load()
    check(data)
    assert (data.classes[7], len(data.classes)) == (seven, 10)


def test_files_are_decoded_once_and_again_when_one_changes(source, tmp_path, monkeypatch):
    folder = tmp_path / "MNIST" / "raw"
    write_files(folder)
    first = source("mnist").load()
    with monkeypatch.context() as patched:
        patched.setattr(mnist, "read_idx", lambda folder: pytest.fail("decoded again"))
        again = source("mnist").load()
    check(again)
    assert again.fingerprint == first.fingerprint
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(bytes([5]), 1))
    changed = source("mnist").load()
    assert changed.test.labels.tolist() == [5]
    assert changed.fingerprint != first.fingerprint


def cut(name: str, size: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def replace(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut("train-images-idx3-ubyte", -1), "train-images-idx3-ubyte is not a whole IDX file"),
        (cut("train-images-idx3-ubyte", 10), "train-images-idx3-ubyte is not a whole IDX file"),
        (cut("t10k-labels-idx1-ubyte", 0), "t10k-labels-idx1-ubyte is not a whole IDX file"),
        (replace("t10k-labels-idx1-ubyte", b"<html>404</html>"), "t10k-labels-idx1-ubyte is not a whole IDX file"),
        (replace("train-images-idx3-ubyte", bytes([0, 0, 8, 3]) + b"\x7f\xff\xff\xff" * 3), "×2147483647 are 9,9"),
        (replace("train-images-idx3-ubyte", idx(b"123", 3)), "train-images-idx3-ubyte is not a whole IDX file"),
        (replace("train-labels-idx1-ubyte", idx(b"\1\2", 2)), "train-images.* and .*train-labels.*different numbers"),
        (replace("train-labels-idx1-ubyte", idx(b"\1\2\12", 3)), "train-labels-idx1-ubyte holds labels above 9"),
    ],
)
def test_a_broken_file_is_named(source, tmp_path, damage, words):
    folder = tmp_path / "MNIST" / "raw"
    write_files(folder)
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        source("mnist").load()
    assert "file ()" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize(("choice", "name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_without_a_network_the_error_says_where_the_files_belong(source, tmp_path, monkeypatch, choice, name):
    def unreachable(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", unreachable)
    write_files(tmp_path / name / "raw")
    (tmp_path / name / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError) as caught:
        source(choice).load()
    message = str(caught.value)
    assert message.startswith(f"dataset: {name} is not in {tmp_path / name / 'raw'} and could not be downloaded")
    assert "no route to host" in message
    assert all(file in message for file in mnist.FILES)
    assert "data_dir" in message
    assert "\n" not in message


def test_absent_files_are_downloaded_to_where_they_are_read(source, monkeypatch):
    def download(url, download_root, filename, md5):
        write_files(Path(download_root))

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", download)
    check(source("mnist").load())


@pytest.mark.data
def test_the_real_mnist_has_its_published_counts_and_mean(source, data_dir):
    data = source("mnist", data_dir=data_dir).load()
    assert data.train.inputs.shape == (60000, 1, 28, 28)
    assert data.test.inputs.shape == (10000, 1, 28, 28)
    assert data.classes == tuple("0123456789")
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(data.train.inputs.float().mean() / 255) == pytest.approx(0.1307, abs=5e-5)
