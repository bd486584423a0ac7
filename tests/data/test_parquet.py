import json
import random
import sys

import pytest
import torch

from tests.faults.whole import memory_up_to
from trustml_cli.data import parquet
from trustml_cli.system.errors import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def load(source, tmp_path, encode):
    """Writes the two files and loads them. Pictures are grey levels, or bytes; one black picture is the test."""

    def run(labels=("cat", "dog"), pictures=(10, 20), test=(0, None), columns=("img", "label"), names=None, **keys):
        def write(split, pictures, labels):
            images = [p if isinstance(p, bytes | None) else encode(p) for p in pictures]
            rows = [{"bytes": image, "path": None} for image in images]
            table = pa.table(dict(zip(columns, (rows, pa.array(labels)), strict=True)))
            if names:
                features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
                table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            pq.write_table(table, tmp_path / f"{split}.parquet", compression="none")

        write("train", pictures, list(labels))
        write("test", [test[0]], [test[1] if test[1] is not None else labels[0]])
        files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
        return source("parquet", **{"channels": 1, **files, **keys}).load()

    return run


@pytest.mark.parametrize(
    ("labels", "names", "classes", "numbers"),
    [
        (["dog", "cat"], None, ("cat", "dog"), [1, 0]),
        ([2, 0], None, ("0", "1", "2"), [2, 0]),
        ([1, 0], ["dog", "cat", "owl"], ("dog", "cat", "owl"), [1, 0]),
        (["owl", "dog"], ["dog", "cat", "owl"], ("dog", "cat", "owl"), [2, 0]),
    ],
    ids=["names", "numbers", "numbers of the described classes", "names of the described classes"],
)
def test_classes_are_the_described_ones_or_those_that_occur(load, labels, names, classes, numbers):
    data = load(labels, names=names)
    assert data.classes == classes
    assert data.train.labels.tolist() == numbers
    assert data.test.labels.tolist() == numbers[:1]


def test_pictures_keep_their_order_size_and_values(load, encode):
    data = load([0, 1, 1], pictures=[encode(level, 3, 2) for level in (10, 30, 20)], test=(encode(255, 3, 2), 1))
    assert data.train.inputs.dtype == torch.uint8
    assert torch.equal(data.train.inputs, torch.tensor([10, 30, 20]).view(3, 1, 1, 1).expand(3, 1, 2, 3))
    assert torch.equal(data.test.inputs, torch.full((1, 1, 2, 3), 255))


def test_columns_go_by_the_names_given_and_images_may_be_plain_bytes(source, tmp_path, encode):
    for split in ("train", "test"):
        table = pa.table({"picture": [encode((1, 2, 3)), encode((4, 5, 6))], "kind": ["a", "b"]})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
    data = source("parquet", **files, image="picture", label="kind").load()
    assert data.train.inputs[:, :, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert data.train.labels.tolist() == [0, 1]


def write(path, rows, labels, names=None, column="image"):
    """A file of encoded images or paths, with the names that its metadata has for the class numbers."""
    table = pa.table({column: rows, "label": pa.array(labels)})
    if names:
        features = {column: {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def test_classes_that_the_splits_list_in_another_order_are_matched_by_name(source, tmp_path, encode):
    cat, dog = encode(10), encode(20)
    write(tmp_path / "train.parquet", [cat, dog], [0, 1], ["cat", "Lo\u0308we"])
    write(tmp_path / "test.parquet", [dog, cat], [0, 1], ["L\u00f6we", "cat"])
    data = source("parquet", root=str(tmp_path), channels=1).load()
    assert data.classes == ("cat", "L\u00f6we")
    for split in (data.train, data.test):
        assert split.labels.tolist() == [int(level == 20) for level in split.inputs[:, 0, 0, 0]]
    write(tmp_path / "test.parquet", [dog, cat], [1, 0])
    undescribed = source("parquet", root=str(tmp_path), channels=1).load()
    assert undescribed.test.labels.tolist() == [1, 0]
    assert "test.parquet has no names of classes; its numbers are taken as those of" in undescribed.notes[0]
    write(tmp_path / "test.parquet", [dog], [1], ["cat", "owl"])
    with pytest.raises(InputError, match=r"test.parquet row 0: label='owl' is not among the classes \('cat', 'Löwe'\)"):
        source("parquet", root=str(tmp_path), channels=1).load()


SHARDS = [f"data/train-0000{number}-of-00002.parquet" for number in (0, 1)]


@pytest.mark.parametrize(
    "keys",
    [
        {"root": "."},
        {"train": "data/train-*.parquet", "test": "data/validation-*.parquet"},
        {"train": SHARDS, "test": "data"},
    ],
)
def test_shards_are_joined_and_a_validation_split_is_the_test_set(source, tmp_path, encode, monkeypatch, keys):
    monkeypatch.chdir(tmp_path)
    for number in (0, 1):
        write(tmp_path / SHARDS[number], [encode(number), encode(10 + number)], [0, 1])
    write(tmp_path / "data/validation-00000-of-00001.parquet", [encode(7)], [1])
    data = source("parquet", **keys, channels=1).load()
    assert data.train.inputs[:, 0, 0, 0].tolist() == [0, 10, 1, 11]
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 0, 1], [1])
    assert data.test.inputs.unique().tolist() == [7]


@pytest.mark.parametrize("kind", ["struct", "text"])
def test_a_path_is_relative_to_the_file_and_stays_in_its_folder(source, tmp_path, encode, kind):
    def read(*places):
        rows = [{"bytes": None, "path": place} if kind == "struct" else place for place in places]
        write(tmp_path / "set" / "train.parquet", rows, [0, 1])
        write(tmp_path / "set" / "test.parquet", [{"bytes": encode(30), "path": None}], [1])
        return source("parquet", root=str(tmp_path / "set"), channels=1).load()

    (tmp_path / "set" / "images").mkdir(parents=True)
    for place, level in (("set/images/a.png", 10), ("set/b.png", 20), ("c.png", 0)):
        (tmp_path / place).write_bytes(encode(level))
    first = read("images/a.png", "b.png")
    assert first.train.inputs[:, 0, 0, 0].tolist() == [10, 20]
    (tmp_path / "set" / "b.png").write_bytes(encode(21))
    assert read("images/a.png", "b.png").train.inputs[1].unique().tolist() == [21]
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "c.png")
    for place in ("../c.png", str(tmp_path / "c.png"), "link.png", "images/../../set/b.png"):
        with pytest.raises(InputError, match=r"train.parquet row 1: .* leads out of the folder of this file"):
            read("b.png", place)
    with pytest.raises(InputError, match=r"train.parquet row 0: no file .*nowhere.png"):
        read("nowhere.png", "b.png")


def test_with_a_size_pictures_of_any_size_fit_together(load, encode):
    data = load(pictures=[encode(10, 9, 5), encode(20, 3, 8, "JPEG")], size=4)
    assert data.shape == (1, 4, 4)
    assert data.train.inputs.float().mean((1, 2, 3)).tolist() == pytest.approx([10, 20], abs=1)


def test_pictures_are_decoded_once(load, source, tmp_path, monkeypatch):
    first = load()
    monkeypatch.setattr(parquet, "decode_pictures", lambda *args: pytest.fail("decoded again"))
    files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
    again = source("parquet", **files, channels=1).load()
    assert torch.equal(again.train.inputs, first.train.inputs)
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"pictures": (10, 21)}, {"labels": (1, 1, 0)}, {"names": ["b", "a"]}, {"size": 2}, {"channels": 3}],
    ids=str,
)
def test_the_fingerprint_changes_with_pictures_labels_names_and_sizes(load, change):
    start = {"labels": (0, 1, 0), "names": ["a", "b"], "pictures": (10, 20, 30)}
    if "pictures" in change:
        change = {"pictures": (*change["pictures"], 30)}
    assert load(**start).fingerprint != load(**{**start, **change}).fingerprint


BROKEN = [
    ({"columns": ("photo", "label")}, "train.parquet has no column 'image'; it has photo, label"),
    ({"columns": ("img", "y")}, "train.parquet has no column 'label'; it has img, y"),
    ({"test": (0, "cow")}, r"test.parquet row 0: label='cow' is not among the classes \('cat', 'dog'\)"),
    ({"labels": [0, -1]}, r"train.parquet row 1: label=-1 is not among the classes \('0',\)"),
    ({"labels": [0, 3], "names": ["a", "b"]}, r"row 1: label=3 is not among the classes \('a', 'b'\)"),
    ({"labels": ["cat", None]}, "train.parquet row 1: label is None, not a class number or name"),
    ({"labels": [0.5, 1.0]}, "train.parquet row 0: label is 0.5, not a class number or name"),
    ({"labels": ["cat", "cat"]}, "one class only"),
    ({"pictures": (10, b"GIF?")}, "train.parquet row 1 cannot be read as an image"),
    ({"pictures": (10, None)}, "train.parquet row 1: img holds no encoded image"),
    ({"labels": [], "pictures": [], "test": (0, 1)}, "train.parquet has no rows"),
    ({"size": 0}, "dataset.size: must be at least 1 pixel"),
    ({"channels": 2}, "dataset.channels: must be 1 .grey. or 3 .colour., got 2"),
    ({"train": "nowhere.parquet"}, "dataset.train: no file nowhere.parquet; give parquet files"),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "words"), BROKEN)
def test_what_is_broken_is_named(load, broken, words):
    with pytest.raises(InputError, match=words):
        load(**broken)


@pytest.mark.parametrize("place", ["train", "test"])
def test_pictures_of_several_sizes_are_refused_unless_a_size_is_set(load, encode, place):
    wide = encode(0, 6, 4)
    pictures = {"pictures": (10, wide)} if place == "train" else {"test": (wide, "cat")}
    with pytest.raises(InputError, match=r"6×4.*4×4|4×4.*6×4") as caught:
        load(**pictures)
    assert "set dataset.size=PIXELS" in str(caught.value)
    assert load(**pictures, size=4).shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-3], "train.parquet is not a whole parquet file"),
        (lambda content: b"img,label\n", "train.parquet is not a whole parquet file"),
        (lambda content: content[:4] + bytes(40) + content[44:], "train.parquet is damaged"),
    ],
    ids=["cut off", "another format", "overwritten"],
)
def test_a_damaged_file_is_named(load, source, tmp_path, damage, words):
    load()
    file = tmp_path / "train.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=words):
        source("parquet", train=str(file), test=str(tmp_path / "test.parquet"), channels=1).load()


def test_without_pyarrow_the_error_says_what_to_install(load, source, tmp_path, monkeypatch):
    load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs the extra parquet .*: pip install 'trustml-cli\[parquet\]'$"):
        source("parquet", train="train.parquet", test="train.parquet", channels=1).load()


def repeated(value, count):
    """A column of so many rows with one value, which the file holds once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def test_rows_that_take_no_room_in_the_file_are_refused(source, tmp_path, encode):
    rows = 100_000
    table = pa.table({"img": repeated(encode(10), rows), "label": pa.array([0, 1] * (rows // 2))})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < rows
    files = dict.fromkeys(("train", "test"), str(tmp_path / "bomb.parquet"))
    with memory_up_to(50), pytest.raises(InputError, match=r"bomb\.parquet unpacks to 100,000 rows .* no images"):
        source("parquet", **files, channels=1, size=8).load()


def test_images_that_the_file_holds_once_are_not_multiplied(source, tmp_path, encode):
    rows = 1000
    padded = encode(10) + bytes(random.Random(0).randbytes(200_000))  # 200 MB in all
    table = pa.table({"img": repeated(padded, rows), "label": pa.array([0, 1] * (rows // 2))})
    pq.write_table(table, tmp_path / "one.parquet")
    files = dict.fromkeys(("train", "test"), str(tmp_path / "one.parquet"))
    with memory_up_to(150):
        assert len(source("parquet", **files, channels=1, size=8).load().train) == rows


def test_decoded_images_that_do_not_fit_are_refused(load, monkeypatch):
    monkeypatch.setattr("trustml_cli.data.pictures.memory_for_one_read", lambda: 10)
    with pytest.raises(InputError, match=r"2 images of \d+×\d+ take 0 GB decoded, more than half of the memory"):
        load()


@pytest.mark.parametrize("names", [None, ["x" * 10**6, "dog"]], ids=["labels", "description"])
def test_the_name_of_a_class_has_an_end(load, names):
    labels = ["x" * 10**6, "dog"] if names is None else [0, 1]
    with pytest.raises(InputError, match="has a class name of 1,000,000 characters; 500 at most are taken"):
        load(labels, names=names)


def test_a_class_that_is_not_there_is_told_in_a_few_words(load):
    with pytest.raises(InputError, match="is not among the classes") as caught:
        load(list(range(400)), pictures=[1] * 400, test=(0, 500))
    assert len(str(caught.value)) < 400
