import hashlib
import pickle
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from trustml_cli.data.cifar10 import BATCH_FILES, CLASSES, Cifar10
from trustml_cli.system.errors import InputError


def write_batches(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six batches of two images: image i of batch b is i everywhere, but its green is 100 and its corner b.

    torchvision is told their checksums in place of those of the real files.
    """
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    checksums = []
    for batch, name in enumerate(BATCH_FILES):
        images = np.zeros((2, 3, 32, 32), np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None, None]
        images[:, 1] = 100
        images[:, :, 0, 31] = batch
        content = pickle.dumps({"data": images.reshape(2, -1), "labels": [batch, 9 - batch]})
        (folder / name).write_bytes(content)
        checksums.append([name, hashlib.md5(content).hexdigest()])
    meta = pickle.dumps({"label_names": list(CLASSES)})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", checksums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", checksums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})
    return folder


def write_parquet(data_dir: Path, encode) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (data_dir / "cifar10").mkdir(exist_ok=True)
    for split, labels in (("train", [9, 3, 0]), ("test", [1])):
        rows = [{"bytes": encode((label, 50, 200), 32, 32), "path": None} for label in labels]
        pq.write_table(pa.table({"img": rows, "label": labels}), data_dir / "cifar10" / f"{split}.parquet")


def check_batches(data) -> None:
    assert data.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert data.test.labels.tolist() == [5, 4]
    assert (data.train.inputs.shape, data.train.inputs.dtype) == ((10, 3, 32, 32), torch.uint8)
    assert data.train.inputs[5, :, 1, 0].tolist() == [1, 100, 1]  # the second image of the third batch
    assert data.train.inputs[5, :, 0, 31].tolist() == [2, 2, 2]  # top right, not bottom left
    assert data.classes == CLASSES


def test_torchvisions_batches_are_read_in_their_order(source, tmp_path, monkeypatch):
    write_batches(tmp_path, monkeypatch)
    check_batches(source("cifar10").load())


def test_batches_are_decoded_once(source, tmp_path, monkeypatch):
    write_batches(tmp_path, monkeypatch)
    first = source("cifar10").load()
    monkeypatch.setattr(Cifar10, "read_batches", lambda self: pytest.fail("decoded again"))
    again = source("cifar10").load()
    check_batches(again)
    assert again.fingerprint == first.fingerprint


def test_parquet_files_do_where_there_are_no_batches(source, tmp_path, encode):
    write_parquet(tmp_path, encode)
    data = source("cifar10").load()
    assert data.train.labels.tolist() == [9, 3, 0]
    assert data.train.inputs[:, :, 7, 7].tolist() == [[9, 50, 200], [3, 50, 200], [0, 50, 200]]
    assert (data.shape, data.classes[9]) == ((3, 32, 32), "truck")


def test_a_copy_that_went_through_jpeg_says_so(source, tmp_path, encode):
    write_parquet(tmp_path, encode)
    assert source("cifar10").load().notes == ()
    write_parquet(tmp_path, partial(encode, kind="JPEG"))
    copied = source("cifar10").load()
    (note,) = copied.notes
    assert note == "4 of 4 images went through JPEG, which is lossy; these are not the pixels that others measure on"
    assert source("cifar10").load().notes == copied.limited(3).notes == (note,), "when it is not decoded again too"


def test_batches_are_preferred_to_parquet_files(source, tmp_path, encode, monkeypatch):
    write_parquet(tmp_path, encode)
    write_batches(tmp_path, monkeypatch)
    check_batches(source("cifar10").load())


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_file_with_another_checksum_is_not_unpickled(source, tmp_path, monkeypatch, flip_byte, name):
    folder = write_batches(tmp_path, monkeypatch)
    flip_byte(folder / name)
    with pytest.raises(InputError, match=f"dataset: {folder} is damaged"):
        source("cifar10").load()


def test_without_a_network_the_error_says_where_the_files_belong(source, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unreachable)
    with pytest.raises(InputError) as caught:
        source("cifar10").load()
    message = str(caught.value)
    assert message.startswith(f"dataset: CIFAR-10 is not in {tmp_path} and could not be downloaded")
    assert "no route to host" in message
    assert f"put the folder cifar-10-batches-py or the files {tmp_path / 'cifar10' / 'train.parquet'}" in message
    assert "data_dir" in message


def test_absent_files_are_downloaded_to_where_they_are_read(source, tmp_path, monkeypatch):
    def download(url, root, filename, md5):
        write_batches(Path(root), monkeypatch)

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    check_batches(source("cifar10").load())


@pytest.mark.data
def test_the_real_cifar10_has_its_published_counts_and_means(source, data_dir):
    data = source("cifar10", data_dir=data_dir).load()
    assert data.train.inputs.shape == (50000, 3, 32, 32)
    assert data.test.inputs.shape == (10000, 3, 32, 32)
    assert data.classes == CLASSES
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    means = torch.stack([data.train.inputs[:, channel].float().mean() / 255 for channel in range(3)])
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-4)
