"""Data at the edge of what can be had: each case ends in a result that is right, or in one line that says why not."""

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from tests.faults.whole import memory_up_to, reader
from tests.helpers import Cli
from trustml_cli.config.messages import quoted
from trustml_cli.system.errors import InputError

pytestmark = pytest.mark.renders  # data at the edge is drawn, too

RUN = ["trainer=smoke", "model=logistic"]
FOLDER = ["dataset=image_folder", "dataset.size=8", "dataset.root=images"]
TABLE = [
    "trainer=smoke", "dataset=csv", "dataset.path=people.csv", "dataset.label=hired", "dataset.positive=yes",
    "dataset.sensitive=sex",
]  # fmt: skip
PEOPLE = [[str(20 + row), str(row % 7), "fm"[row % 2], "no" if row % 3 else "yes"] for row in range(60)]


def table(change: Callable[[int, list[str]], list[str]] = lambda row, person: person, rows: int = 60) -> str:
    people = [change(row, list(person)) for row, person in enumerate(PEOPLE[:rows])]
    return "\n".join(",".join(person) for person in [["age", "children", "sex", "hired"], *people]) + "\n"


def setting(column: int, value: str, rows: Callable[[int], bool] = lambda row: True) -> str:
    """The table with `value` in a column of some rows."""
    return table(lambda row, person: [*person[:column], value, *person[column + 1 :]] if rows(row) else person)


TABLES = [
    ("nan in some rows", setting(0, "nan", lambda row: row % 4 == 0), 0, []),
    ("nan in a column", setting(0, "nan"), 0, []),
    ("nothing in a column", setting(0, ""), 0, []),
    ("infinity", setting(0, "inf", lambda row: row == 7), 2, ["'age'", "infinity"]),
    ("minus infinity", setting(0, "-inf", lambda row: row == 7), 2, ["'age'", "infinity"]),
    ("beyond float32", setting(0, "1e308", lambda row: row % 2 == 0), 2, ["'age'", "3e+38"]),
    ("a constant column", setting(0, "5"), 0, []),
    ("nothing but constants", table(lambda row, person: ["5", "5", *person[2:]]), 0, []),
    ("one group only", setting(2, "f"), 2, ["dataset.sensitive", "'sex'", "one value 'f'"]),
    ("a group for each", table(lambda row, person: [*person[:2], f"s{row}", person[3]]), 2, ["'sex' has 60 values"]),
    ("one class only", setting(3, "yes"), 2, ["hired=yes", "class of 0 rows"]),
    ("a class of one", table(lambda row, person: [*person[:3], "no" if row else "yes"]), 2, ["class of 1 rows"]),
    ("labels missing", setting(3, "", lambda row: row % 5 == 0), 0, []),
    ("no rows", table(rows=0), 2, ["people.csv has no rows"]),
    ("nothing", "", 2, ["people.csv", "cannot be read as a table"]),
    ("no text", "\0\1\2\3" * 50, 2, ["people.csv"]),
    ("a row too long", table() + "1,2,f,yes,5\n", 2, ["people.csv", "line 62"]),
]


FULL = pytest.mark.faults
at_the_edge = pytest.mark.parametrize(
    ("content", "code", "expected"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES]
)


@at_the_edge
def test_a_table_at_the_edge_is_read(
    content: str, code: int, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.csv").write_text(content)
    source = reader("csv", tmp_path, path="people.csv", label="hired", positive="yes", sensitive=["sex"])
    if code:
        with pytest.raises(InputError) as error:
            source.load()
        assert all(word in str(error.value) for word in expected), error.value
        return
    data = source.load()
    for split in (data.train, data.test):
        inputs, labels = next(split.stream(torch.arange(len(split)), len(split)))
        assert inputs.isfinite().all()
        assert set(labels.tolist()) == {0, 1}


@FULL
@at_the_edge
def test_a_table_at_the_edge(content: str, code: int, expected: list[str], trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(content)
    words = ["task=train", "model=table_mlp"] if code == 0 else ["task=debias"]
    judge(trustml(*words, *TABLE), code, expected, tmp_path)


def judge(answer: subprocess.CompletedProcess[str], code: int, expected: list[str], tmp_path: Path) -> None:
    """Exit status and words on standard error; where it is 0 nothing there, and finite shares in metrics.csv."""
    assert answer.returncode == code, answer.stderr
    assert answer.stderr.count("\n") == (code != 0), answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    if code == 0:
        (metrics,) = tmp_path.glob("outputs/*/*/metrics.csv")
        values = pandas.read_csv(metrics).filter(regex="accuracy$")
        assert values.apply(lambda column: column.between(0, 1).all()).all()
        json.loads(metrics.with_name("run.json").read_text())


def images(root: Path, classes: dict[str, int], level: Callable[[int], int] = lambda number: 50 * number) -> None:
    for split in ("train", "test"):
        for number, (name, count) in enumerate(classes.items()):
            (root / split / name).mkdir(parents=True)
            for each in range(count):
                Image.new("L", (8, 8), level(number)).save(root / split / name / f"{each}.png")


SOME = [("train", "one image"), ("train", "one class"), ("train", "zero images")]
EDGES = {
    "one image": ({"cat": 3, "dog": 1}, lambda number: 50 * number, 0, []),
    "constant": ({"cat": 3, "dog": 3}, lambda number: 0, 0, []),
    "one class": ({"cat": 3}, lambda number: 50, 2, ["one class only (cat)"]),
    "zero images": ({"cat": 3, "dog": 0}, lambda number: 50, 2, ["images/train/dog", "no images"]),
}


@pytest.mark.parametrize(
    ("task", "case"),
    [
        pytest.param(task, case, id=f"{task} {case}", marks=() if (task, case) in SOME else FULL)
        for task in ("train", "fgsm", "explain")
        for case in EDGES
    ],
)
def test_images_at_the_edge(task: str, case: str, trustml: Cli, tmp_path: Path) -> None:
    classes, level, code, expected = EDGES[case]
    images(tmp_path / "images", classes, level)
    more = {"fgsm": ["task.epsilon=[0,0.3]", "task.check_images=0"], "explain": ["task.images=1"]}.get(task, [])
    judge(trustml(f"task={task}", *RUN, *FOLDER, *more), code, expected, tmp_path)


def test_constant_images_of_two_classes_are_guessed_at(trustml: Cli, tmp_path: Path) -> None:
    images(tmp_path / "images", {"cat": 4, "dog": 4}, level=lambda number: 0)
    judge(trustml("task=train", *RUN, *FOLDER), 0, [], tmp_path)
    (metrics,) = tmp_path.glob("outputs/*/*/metrics.csv")
    assert pandas.read_csv(metrics).test_accuracy[0] == 0.5


def test_mnist_without_images(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, 0, 28, 28))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 0))
    with pytest.raises(InputError, match="train-images-idx3-ubyte"):
        reader("mnist", tmp_path).load()


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([0, 10**6 - 1], ["1,000,000 classes", "10,000 at most"]),
        ([0, 2**62], ["classes", "10,000 at most"]),
        ([0, -1], ["row 1", "-1"]),
        ([0, None], ["row 1", "None"]),
        ([0.0, 1.5], ["row 0", "not a class number"]),
        ([], ["no rows"]),
    ],
    ids=["a million classes", "2^62 classes", "negative", "missing", "fractions", "no rows"],
)
def test_labels_at_the_edge_take_no_memory(label: list[object], expected: list[str], tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    rows = [{"bytes": (tmp_path / "x.png").read_bytes(), "path": None} for _ in label]
    parquet.write_table(arrow.table({"img": rows, "label": label}), tmp_path / "x.parquet")
    source = reader("parquet", tmp_path, train=f"{tmp_path}/x.parquet", test=f"{tmp_path}/x.parquet")
    with memory_up_to(100), pytest.raises(InputError) as error:
        source.load()
    assert all(word in str(error.value) for word in ["x.parquet", *expected]), error.value


def test_more_folders_than_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trustml_cli.data.dataset.MOST_CLASSES", 5)
    images(tmp_path / "images", {str(number): 1 for number in range(6)})
    with pytest.raises(InputError, match=r"images/train has 6 classes; 5 at most"):
        reader("image_folder", tmp_path, root=str(tmp_path / "images")).load()
    monkeypatch.setattr("trustml_cli.data.dataset.MOST_CLASSES", 6)
    assert len(reader("image_folder", tmp_path, root=str(tmp_path / "images")).load().classes) == 6


@FULL
def test_ten_thousand_folders_and_one_are_refused(trustml: Cli, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(10_001):
            (tmp_path / "images" / split / str(number)).mkdir(parents=True)
    judge(trustml("task=train", *RUN, *FOLDER), 2, ["images/train", "10,001 classes"], tmp_path)


@FULL
def test_a_thousand_classes_and_a_million_categories_are_taken(trustml: Cli, tmp_path: Path) -> None:
    images(tmp_path / "images", {str(number): 1 for number in range(1000)}, level=lambda number: number % 256)
    judge(trustml("task=train", *RUN, *FOLDER), 0, [], tmp_path)
    (tmp_path / "outputs").rename(tmp_path / "before")
    random = np.random.default_rng(0)
    frame = pandas.DataFrame({"who": np.arange(10**6).astype(str), "age": random.integers(20, 60, 10**6)})
    frame["sex"], frame["hired"] = (
        np.where(frame.index % 2, "f", "m"),
        np.where(random.random(10**6) < 0.5, "yes", "no"),
    )
    frame.to_csv(tmp_path / "people.csv", index=False)
    judge(trustml("task=train", "model=table_mlp", *TABLE), 0, [], tmp_path)


# Paths


PATHS = {
    "letters": "été 猫 😀",
    "spaces": " a  b ",
    "a line break": "a\nb",
    "signs": "a'b\"c$x{y}[z](w)=,;#%&*?<|>~!@^`\\",
    "longest": "x" * 255,
    "longest in letters": "é" * 127,
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=case, marks=() if case == "signs" else FULL) for case, name in PATHS.items()]
)
def test_any_path_will_do(name: str, trustml: Cli, tmp_path: Path) -> None:
    images(tmp_path / name / name, {"cat": 2, "dog": 2})
    answer = trustml(
        "task=train", *RUN, "dataset=image_folder", "dataset.size=8", f"dataset.root={quoted(f'{name}/{name}')}",
        f"output_dir={quoted(f'{name}/out')}", f"cache_dir={quoted(f'{name}/cache')}", f"data_dir={quoted(name)}",
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
    (run,) = (tmp_path / name / "out" / "train").iterdir()
    assert {"metrics.csv", "report.html", "run.json", "config.yaml", "trustml.log"} <= {
        path.name for path in run.iterdir()
    }
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert len(list((tmp_path / name / "cache").glob("*/*/checksums.json"))) == 2
    again = trustml("runs", "--output-dir", f"{name}/out", "status=completed")
    assert "test_accuracy" in again.stdout


def deep(folder: Path, length: int) -> str:
    """A path below `folder` of so many characters."""
    parts = -(-(length - len(str(folder))) // 200)
    text = f"{folder}/" + "/".join(["d" * 199] * parts)
    return text[:length]


@pytest.mark.parametrize(
    ("length", "code"), [pytest.param(3900, 0, marks=FULL), pytest.param(4090, 2, marks=FULL), (5000, 2)]
)
@pytest.mark.parametrize("key", ["output_dir", "cache_dir", "dataset.root"])
def test_a_path_that_is_almost_too_long_or_is(key: str, length: int, code: int, trustml: Cli, tmp_path: Path) -> None:
    where = deep(tmp_path, length)
    words = [*FOLDER[:2]] if key == "dataset.root" else []
    answer = trustml("task=train", *RUN, *words, f"{key}={where}")
    if key == "dataset.root":
        assert answer.returncode == 2
    else:
        assert answer.returncode == 0 if code == 0 else answer.returncode in (1, 2), answer.stderr
    assert answer.stderr.count("\n") == (answer.returncode != 0), answer.stderr
