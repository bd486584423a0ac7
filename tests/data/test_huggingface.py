"""Data sets in the layout of the library datasets: folders of save_to_disk, and folders of parquet files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image as Picture

from tests.configs import choice
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.system.errors import InputError

datasets = pytest.importorskip("datasets")
NAMES = ["cat", "dog", "bird"]
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
LABELS = [0, 1, 2] * 3


@pytest.fixture(autouse=True)
def quiet_and_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def rows(start: int = 0, stop: int = 9, names: list[str] | None = None, **more: Any) -> Any:
    kinds = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=names or NAMES), **more}
    content = {
        "picture": list(PIXELS[start:stop]),
        "kind": LABELS[start:stop],
        **{name: [0] * (stop - start) for name in more},
    }
    return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))


def load(folder: Path, **changes: Any) -> Dataset:
    source = build(choice("dataset", "huggingface", id=str(folder), **changes), "dataset")
    found: Dataset = source.load(folder.parent / "cache")
    return found


def pixels(data: Dataset, split: str) -> torch.Tensor:
    part = getattr(data, split)
    return next(part.stream(torch.arange(len(part)), len(part)))[0]


def test_a_folder_of_save_to_disk_is_read_with_its_columns_found_by_type(tmp_path: Path) -> None:
    datasets.DatasetDict(train=rows(0, 6), validation=rows(6, 9)).save_to_disk(tmp_path / "saved")
    data = load(tmp_path / "saved")
    assert data.classes == ("cat", "dog", "bird")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 2, 0, 1, 2], [0, 1, 2])
    assert torch.equal(pixels(data, "train"), torch.from_numpy(PIXELS[:6]).permute(0, 3, 1, 2))
    assert torch.equal(pixels(data, "test"), torch.from_numpy(PIXELS[6:]).permute(0, 3, 1, 2))


def test_class_numbers_of_the_splits_are_matched_by_name(tmp_path: Path) -> None:
    turned = rows(0, 3, names=["bird", "dog", "cat"])
    rows(0, 6).save_to_disk(tmp_path / "saved" / "train")
    turned.save_to_disk(tmp_path / "saved" / "test")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    data = load(tmp_path / "saved")
    assert [data.classes[label] for label in data.test.labels] == ["bird", "dog", "cat"]


def test_one_split_alone_has_a_share_held_out(tmp_path: Path) -> None:
    rows().save_to_disk(tmp_path / "saved")
    data = load(tmp_path / "saved", test_fraction=0.34)
    assert (len(data.train), len(data.test)) == (6, 3)
    assert torch.cat([data.train.labels, data.test.labels]).bincount().tolist() == [3, 3, 3]


def test_a_folder_of_parquet_files_is_read_and_its_images_resized(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    rows(0, 6).to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    rows(6, 9).to_parquet(tmp_path / "hub" / "test-00000-of-00001.parquet")
    data = load(tmp_path / "hub", size=4, channels=1)
    assert (data.shape, len(data.train), len(data.test)) == ((1, 4, 4), 6, 3)


def test_text_labels_are_classes_in_alphabetical_order(tmp_path: Path) -> None:
    content = {"image": list(PIXELS[:3]), "label": ["wolf", "ape", "wolf"]}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(content, features=kinds).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").classes == ("ape", "wolf")


def write_with_a_path_to(folder: Path, picture: Path) -> None:
    """A parquet file whose images are paths alone, described as images."""
    Picture.new("RGB", (8, 8)).save(picture)
    features = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}
    content = {"image": [{"bytes": None, "path": str(picture)}] * 2, "label": [0, 1]}
    struct = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table(content, schema=pyarrow.schema({"image": struct, "label": pyarrow.int64()}))
    described = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir()
    pyarrow.parquet.write_table(described, folder / "train.parquet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "kinds"}, "dataset.label: .* has no column 'kinds'; give one of kind, other"),
        ({}, "dataset.label: .* has several columns of them; give one of kind, other"),
        ({"label": "kind", "image": "kind"}, "dataset.image: column 'kind' of .* holds no images"),
        ({"label": "kind", "test": "dev"}, "dataset.test: .* has no split 'dev'; it has train"),
    ],
)
def test_a_column_or_split_that_is_not_there_is_named_with_those_there_are(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    rows(other=datasets.ClassLabel(names=["a", "b"])).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=f"^{message}"):
        load(tmp_path / "saved", **changes)


def test_what_is_no_data_set_of_images_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "train.tar").write_bytes(b"")  # its reader would unpickle what is inside
    with pytest.raises(InputError, match="has files for the reader 'webdataset'; only images in parquet, arrow"):
        load(tmp_path / "tar")
    with pytest.raises(InputError, match=r"^dataset\.id: .*absent is not in .* and cannot be downloaded \("):
        load(tmp_path / "absent")
    write_with_a_path_to(tmp_path / "hub", tmp_path / "private.png")
    with pytest.raises(InputError, match=r"row 0 holds no image, but names '/.*, which is not in the data set"):
        load(tmp_path / "hub")
