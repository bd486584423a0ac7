import os
import shutil

import numpy as np
import pytest
import torch

from trustml_cli.data import image_folder
from trustml_cli.data.batches import Augmentation, batches
from trustml_cli.data.dataset import InMemory
from trustml_cli.data.image_folder import Streamed
from trustml_cli.system.errors import InputError

PICTURES = {  # file below the root → grey level
    "train/cat/b.png": 20, "train/cat/a.png": 10, "train/dog/c.PNG": 30, "train/dog/d.bmp": 40, "train/dog/e.png": 50,
    "test/dog/x.png": 70, "test/cat/y.png": 60,
}  # fmt: skip


@pytest.fixture
def root(tmp_path, encode):
    """Two classes, three of whose train pictures are dogs, and files that are to be passed over."""
    for name, level in PICTURES.items():
        file = tmp_path / "pets" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(level, kind="BMP" if file.suffix == ".bmp" else "PNG"))
    for name in ("train/notes.txt", "train/cat/notes.txt", "train/cat/.b.png"):
        (tmp_path / "pets" / name).write_text("no picture")
    (tmp_path / "pets" / "train" / ".hidden").mkdir()
    return tmp_path / "pets"


@pytest.fixture
def read(source, root):
    """Loads the folder."""

    def run(**keys):
        keys = {"root": str(root), "size": 4, "channels": 1, "stream": "never", "workers": 0, **keys}
        return source("image_folder", **keys).load()

    return run


@pytest.mark.parametrize("stream", ["never", "always"])
def test_classes_are_folders_and_pictures_come_in_the_order_of_their_names(read, stream):
    data = read(stream=stream)
    ((train, train_labels),), ((test, test_labels),) = (
        split.stream(torch.arange(len(split)), 9) for split in (data.train, data.test)
    )
    assert data.classes == ("cat", "dog")
    assert torch.equal(train, torch.tensor([10, 20, 30, 40, 50]).view(5, 1, 1, 1).expand(5, 1, 4, 4))
    assert train_labels.tolist() == data.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert (test[:, 0, 0, 0].tolist(), test_labels.tolist()) == ([60, 70], [0, 1])
    assert data.shape == (1, 4, 4)


@pytest.mark.parametrize(("height", "width"), [(4, 8), (8, 4), (8, 16)])
def test_the_middle_square_is_kept(read, root, encode, height, width):
    pixels = np.zeros((height, width), dtype=np.uint8)
    short = min(height, width)
    down, right = (height - short) // 2, (width - short) // 2
    pixels[down : down + short, right : right + short] = 200
    (root / "train" / "cat" / "a.png").write_bytes(encode(pixels))
    assert read(size=4).train.inputs[0].min() > 150  # scaling mixes in a little from beside the square


@pytest.mark.parametrize(("channels", "pixel"), [(1, [76]), (3, [255, 0, 0])])
def test_colours_become_the_channels_asked_for(read, root, encode, channels, pixel):
    (root / "train" / "cat" / "a.png").write_bytes(encode((255, 0, 0)))  # luma of red: 0.299 · 255 (ITU-R 601)
    assert read(channels=channels).train.inputs[0, :, 1, 1].tolist() == pixel


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_from_memory(read, workers):
    def made(**keys):
        torch.manual_seed(3)
        train = read(channels=3, limit=4, **keys).train
        plain = batches(train, 3, torch.device("cpu"))
        augmentation = Augmentation(flip=True, crop_padding=2)
        augmented = batches(train.subset(torch.tensor([3, 0, 1])), 2, torch.device("cpu"), None, augmentation)
        return [*plain, *augmented]

    in_memory, streamed = made(), made(stream="always", workers=workers)
    assert [len(labels) for _, labels in in_memory] == [3, 1, 2, 1]
    for (images, labels), (other_images, other_labels) in zip(in_memory, streamed, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize(("bytes_of_memory", "kind"), [(223, Streamed), (224, InMemory)])
def test_auto_streams_what_takes_more_than_half_of_the_memory(read, monkeypatch, bytes_of_memory, kind):
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": bytes_of_memory}  # seven pictures of 4×4 bytes are 112 bytes
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert type(read(stream="auto").train) is kind


def test_pictures_are_decoded_once(read, monkeypatch):
    first = read()
    monkeypatch.setattr(image_folder, "decode_pictures", lambda *args: pytest.fail("decoded again"))
    again = read()
    assert torch.equal(again.train.inputs, first.train.inputs)
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize(
    "change",
    [
        lambda root, encode: (root / "train" / "cat" / "a.png").write_bytes(encode(11, kind="TIFF")),
        lambda root, encode: (root / "test" / "cat" / "z.png").write_bytes(encode(0)),
        lambda root, encode: (root / "train" / "dog" / "c.PNG").unlink(),
        lambda root, encode: (root / "train" / "dog" / "c.PNG").rename(root / "train" / "cat" / "c.PNG"),
        lambda root, encode: [(root / split / "cat").rename(root / split / "cow") for split in ("train", "test")],
    ],
    ids=["another picture", "one more", "one less", "another label", "another class name"],
)
def test_the_fingerprint_changes_with_the_files(read, root, encode, stream, change):
    before = read(stream=stream).fingerprint
    assert read(stream=stream).fingerprint == before
    change(root, encode)
    assert read(stream=stream).fingerprint != before


def levels(split):
    return split.inputs[:, 0, 0, 0].tolist()


def test_pictures_in_subfolders_belong_to_the_class_and_what_is_left_out_is_counted(read, root, encode, tmp_path):
    hidden = ".ipynb_checkpoints"
    for place, level in (("train/cat/2021/may", 12), (f"train/cat/{hidden}", 1), (f"train/{hidden}", 2)):
        (root / place).mkdir(parents=True)
        (root / place / "0.JPG").write_bytes(encode(level))  # a PNG in truth
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y.png").write_bytes(encode(55))
    (root / "train" / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    data = read()
    assert (data.classes, levels(data.train)) == (("cat", "dog"), [10, 20, 12, 30, 40, 50, 55])
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.notes == ("left out: 4 hidden, 1 outside of class folders, 1 × .txt",)


@pytest.mark.parametrize(("train", "test"), [("train", "val"), ("Training", "Testing"), ("train", "valid")])
def test_the_held_out_split_goes_by_its_usual_names(read, root, train, test):
    for name, other in (("train", train), ("test", test)):
        (root / name).rename(root / other)
    assert levels(read().test) == [60, 70]


def test_a_second_held_out_split_is_named(read, root):
    shutil.copytree(root / "test", root / "val")
    assert "not read, beside train and test: val" in read().notes


@pytest.mark.parametrize("split", ["", "train"])
@pytest.mark.parametrize("stream", ["never", "always"])
def test_without_a_split_a_share_of_each_class_is_held_out(source, tmp_path, encode, split, stream):
    for number in range(10):
        for name in ("cat", "dog"):
            file = tmp_path / "all" / split / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(10 * number + (name == "dog")))
    keys = {"root": str(tmp_path / "all"), "size": 4, "channels": 1, "stream": stream, "workers": 0}
    data, again, half = (source("image_folder", **keys, test_fraction=share).load() for share in (0.2, 0.2, 0.5))
    assert data.notes[0] == "no folder of test images: 0.2 of each class, 4 of 20, are held out"
    assert (data.test.labels.tolist(), half.test.labels.tolist()) == ([0, 0, 1, 1], [0] * 5 + [1] * 5)
    seen = [next(part.stream(torch.arange(len(part)), 99))[0][:, 0, 0, 0].tolist() for part in (data.train, data.test)]
    assert sorted(seen[0] + seen[1]) == sorted(10 * number + dog for number in range(10) for dog in (0, 1))
    assert [level % 10 for level in seen[1]] == [0, 0, 1, 1]  # each file under its own class
    assert data.fingerprint == again.fingerprint != half.fingerprint


def test_one_name_in_two_unicode_spellings_is_one_class(read, root):
    for split, spelling in zip(("train", "test"), LION, strict=True):
        (root / split / "cat").rename(root / split / spelling)
    assert read().classes == ("L\u00f6we", "dog")


def test_transparent_deep_and_moving_pictures_are_counted(read, root):
    from PIL import Image

    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(root / "train" / "cat" / "a.png")
    Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16)).save(root / "train" / "cat" / "b.png")
    frames = [Image.new("L", (4, 4), level) for level in (30, 31)]
    frames[0].save(root / "train" / "dog" / "c.PNG", "GIF", save_all=True, append_images=frames[1:])
    data = read(background=0.2)
    assert levels(data.train) == [51, 255, 30, 40, 50]
    assert [note.partition(" images ")[2][:20] for note in data.notes[1:]] == [
        "have more than 8 bit", "have several frames ", "are transparent in p",
    ]  # fmt: skip
    assert all(note.startswith("1 of 7 ") for note in data.notes[1:])


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


LION = ("L\u00f6we", "Lo\u0308we")  # NFC, and NFD as in archives that were packed on a Mac

BROKEN = [
    (lambda root: root.rename(root.parent / "elsewhere"), "dataset.root: no folder .*pets; images belong in ROOT"),
    (lambda root: (root / "test").rename(root / "tests"), "pets has train, but none of .*; there are tests, train"),
    (lambda root: (root / "train").rename(root / "x"), "no folder .*pets/train, but .*pets/test; images belong"),
    (lambda root: (root / "train" / "owl").symlink_to("gone"), "train/owl is a link to nothing; remove it"),
    (lambda root: (root / "train" / "cat" / "up").symlink_to(root / "train"), "up/cat is a link to a folder that it"),
    (lambda root: (root / "train" / "cat" / "gone.txt").symlink_to("gone"), "gone.txt is a link to nothing; remove it"),
    (lambda root: (root / "train" / "Cat").mkdir(), r"train and test differ in class 'Cat' \(in train only\)$"),
    (lambda root: (root / "test" / "cat").rename(root / "test" / "Cat"), r"'Cat' \(in test only\), 'cat' \(in train"),
    (lambda root: [(root / "train" / spelling).mkdir() for spelling in LION], "two folders 'Löwe', in two Unicode"),
    (lambda root: [(root / "train" / c).rename(root / c) for c in ("cat", "dog")], "pets/train has no class folders"),
    (lambda root: empty(root / "test" / "dog"), "dataset.root: .*test/dog holds no images; a class needs at least one"),
    (lambda root: (root / "test/dog/x.png").rename(root / "test/dog/x.heic"), r"no images \(only 1 × .heic\); a class"),
    (lambda root: (root / "train/dog/e.png").write_bytes(b""), r"train/dog/e.png cannot be read .* \(it is empty\)"),
    (lambda root: (root / "train" / "owl").mkdir(), r"train and test differ in class 'owl' \(in train only\)$"),
    (lambda root: (root / "test" / "cat").rename(root / "test" / "dot"), "train and test differ in class 'cat'"),
    (lambda root: (root / "train/dog/e.png").write_text("?"), "train/dog/e.png cannot be read as an image"),
    (lambda root: os.truncate(root / "test/cat/y.png", 50), "test/cat/y.png cannot be read as an image"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), BROKEN)
def test_what_is_broken_is_named(read, root, damage, words):
    damage(root)
    with pytest.raises(InputError, match=words):
        read()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named_in_one_line_when_streaming(read, root, workers):
    (root / "train" / "dog" / "c.PNG").write_text("no picture")
    train = read(stream="always", workers=workers).train
    with pytest.raises(InputError) as caught:
        list(train.stream(torch.arange(5), 2))
    assert str(caught.value).startswith(f"dataset: {root / 'train' / 'dog' / 'c.PNG'} cannot be read as an image")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("size", 0, "dataset.size: must be at least 1 pixel"),
        ("channels", 4, "dataset.channels: must be 1 .grey. or 3 .colour., got 4"),
        ("workers", -1, "dataset.workers: must be at least 0, got -1"),
        ("stream", "sometimes", "dataset.stream: .*'sometimes', expected one of .auto, always, never"),
    ],
)
def test_a_value_out_of_range_is_refused(read, key, value, words):
    with pytest.raises(InputError, match=words):
        read(**{key: value})


MAKE = {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda path: path.symlink_to("nowhere")}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("stream", ["never", "always"])
def test_what_is_no_file_is_named_and_not_opened(read, root, make, stream):
    make(root / "train" / "cat" / "z.png")
    with pytest.raises(InputError, match=r"dataset\.root: .*train/cat/z\.png is (no file|a link to nothing)"):
        read(stream=stream)


def test_a_pipe_that_takes_the_place_of_a_picture_does_not_block(read, root):
    train = read(stream="always").train
    (root / "train" / "cat" / "a.png").unlink()
    os.mkfifo(root / "train" / "cat" / "a.png")
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image \(is a named pipe, not a regular file\)"):
        list(train.stream(torch.arange(5), 5))


def test_names_of_classes_steer_no_terminal(read, root):
    for split in ("train", "test"):
        for name, other in (("cat", "c\x1b[31m\nat\udcff"), ("dog", "d\u202eog")):
            (root / split / name).rename(root / split / other)
    assert read().classes == ("c\\x1b[31m\\x0aat\\xff", "d\\u202eog")


@pytest.mark.data
def test_the_real_cats_and_dogs_are_read(source, data_dir):
    data = source("image_folder", root=str(data_dir / "cats_dogs"), size=32, limit=400, stream="always").load()
    assert data.classes == ("cats", "dogs")
    assert (len(data.train), len(data.test), data.shape) == (400, 400, (3, 32, 32))
    assert data.train.labels.float().mean() == pytest.approx(0.5, abs=0.08)
    means = torch.stack([x.mean((0, 2, 3)) for x, _ in batches(data.train, 400, torch.device("cpu"))])[0]
    assert means.tolist() == pytest.approx([0.488, 0.455, 0.417], abs=0.02)


@pytest.mark.parametrize("stream", ["never", "always"])
def test_pictures_that_are_moved_make_another_data_set_though_size_and_time_stay(read, root, stream):
    for file in root.rglob("*.*"):
        os.utime(file, ns=(0, 5))
    one, two = root / "test" / "cat" / "y.png", root / "test" / "dog" / "x.png"
    before = read(stream=stream)
    assert one.stat().st_size == two.stat().st_size, "else it would be seen by that"
    one.rename(root / "kept")
    two.rename(one)
    (root / "kept").rename(two)
    after = read(stream=stream)
    levels = [next(data.test.stream(torch.arange(2), 2))[0][:, 0, 0, 0].tolist() for data in (before, after)]
    assert levels[1] == [70, 60]
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_copy_elsewhere_is_the_same_data_set(source, read, root, stream, tmp_path):
    shutil.copytree(root, tmp_path / "elsewhere")
    copy = read(stream=stream, root=str(tmp_path / "elsewhere"))
    assert copy.fingerprint == read(stream=stream).fingerprint
    assert copy.fingerprint != read(stream=stream, size=5).fingerprint
