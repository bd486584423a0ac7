"""Files and names from strangers: nothing of theirs is run, written elsewhere, or taken for a formula or for HTML."""

import csv
import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trustml_cli.errors import InputError
from trustml_cli.explain import quoted
from trustml_cli.models.checkpoint import read_weights
from trustml_cli.spreadsheet import FORMULA, as_csv, as_it_was, harmless, read_csv
from trustml_cli.summary import read_runs
from trustml_cli.sweep import resumed_words

Cli = Callable[..., subprocess.CompletedProcess[str]]

RUN = ["trainer=smoke", "model=logistic"]
OFFLINE = {"http_proxy": "http://localhost:1", "https_proxy": "http://localhost:1"}
MODULE = """
from dataclasses import dataclass
from pathlib import Path

Path("it_ran").touch()

@dataclass
class Evil:
    pass

def network():
    return None
"""
GLOBAL = "# @package _global_\n"
YAMLS = {
    "attack/theirs": "_target_: stranger.Evil\n",
    "experiment/allows": f"{GLOBAL}allow: [stranger]\nattack: {{_target_: stranger.Evil}}\n",
    "experiment/calls_back": f"{GLOBAL}hydra: {{callbacks: {{x: {{_target_: stranger.Evil}}}}}}\n",
    "experiment/logs": f"{GLOBAL}hydra: {{job_logging: {{handlers: {{x: {{(): stranger.Evil}}}}}}}}\n",
    "experiment/sets": f"{GLOBAL}hydra: {{job: {{env_set: {{PATH: /tmp/theirs}}}}}}\n",
    "experiment/decodes": f"{GLOBAL}attack: '${{oc.create:{{_target_: stranger.Evil}}}}'\n",
    "experiment/makes": f"{GLOBAL}defaults: [override /model: custom]\nmodel: {{factory: 'stranger:network'}}\n",
    "hydra/job_logging/theirs": "handlers: {x: {class: stranger.Evil}}\n",
    "model/theirs": "defaults: [custom, _self_]\nfactory: stranger:network\n",
}
REFUSED = [
    (["attack=theirs"], ["attack._target_", "stranger.Evil", "allow=[stranger]"]),
    (["attack=theirs", "allow=[strange]"], ["attack._target_", "allow=[stranger]"]),
    (["experiment=allows"], ["allow", "experiment/allows.yaml", "command line"]),
    (["experiment=allows", "allow=[stranger]"], ["allow", "experiment/allows.yaml", "command line"]),
    (["experiment=calls_back"], ["hydra", "experiment/calls_back.yaml", "allow=[hydra]"]),
    (["experiment=logs"], ["hydra", "experiment/logs.yaml", "allow=[hydra]"]),
    (["experiment=sets", "allow=[stranger]"], ["hydra", "experiment/sets.yaml", "allow=[hydra]"]),
    (["experiment=decodes"], ["attack._target_", "allow=[stranger]"]),
    (["experiment=makes"], ["model.factory", "stranger:network", "allow=[stranger]"]),
    (["hydra/job_logging=theirs"], ["hydra", "hydra/job_logging/theirs.yaml"]),
    (["task.transfer_to=theirs"], ["others.theirs.factory", "allow=[stranger]"]),
    (["attack._target_=stranger.Evil"], ["attack._target_", "allow=[stranger]"]),
    (["attack._target_=os.system"], ["attack._target_", "os.system", "allow=[os]"]),
    (["+hydra.callbacks.x._target_=stranger.Evil"], ["hydra.callbacks.x._target_", "allow=[stranger]"]),
    (["+hydra.callbacks.x._target_=trustml_cli.run.os.system"], ["hydra.callbacks.x._target_", "trustml_cli.run.os"]),
    (["+hydra.launcher.x._target_=stranger.Evil"], ["hydra.launcher.x._target_", "allow=[stranger]"]),
    (["+hydra.job_logging.handlers.x.class=stranger.Evil"], ["hydra.job_logging.handlers.x.class"]),
    (["+hydra.job_logging.handlers.x.class=logging.os.system"], ["hydra.job_logging.handlers.x.class"]),
    (["+hydra.hydra_logging.filters.x=ext://stranger.Evil"], ["hydra.hydra_logging.filters.x", "stranger.Evil"]),
    (["--config-path", "theirs"], ["--config-path", "--config-dir"]),
    (["--config-name", "theirs"], ["--config-name", "--config-dir"]),
    (["--experimental-rerun", "config.pickle"], ["--experimental-rerun"]),
]


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of choices that name code beside it."""
    (tmp_path / "stranger.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    for name, text in YAMLS.items():
        (tmp_path / "theirs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs" / f"{name}.yaml").write_text(text)
    return tmp_path / "theirs"


@pytest.mark.parametrize(("words", "expected"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_code_that_a_configuration_names_is_refused_before_it_is_imported(
    words: list[str], expected: list[str], trustml_here: Cli, tmp_path: Path, strangers: Path
) -> None:
    answer = trustml_here("--config-dir", "theirs", "task=attack", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert not (tmp_path / "it_ran").exists()
    assert "stranger" not in sys.modules


@pytest.mark.parametrize(
    "words",
    [
        ["attack=theirs", "allow=[stranger]"],
        ["attack=theirs", "allow=stranger.Evil"],
        ["+hydra.callbacks.x._target_=stranger.Evil", "allow=[stranger]", "task.epsilon=-1"],
        ["experiment=calls_back", "allow=[hydra,stranger]", "task.epsilon=-1"],
        ["model=custom", "model.factory=stranger:network"],
        ["experiment=makes", "allow=[stranger]"],
    ],
    ids=" ".join,
)
@pytest.mark.filterwarnings("ignore:Callback Evil")  # it has none of the methods
def test_what_the_user_names_on_the_command_line_is_run(
    words: list[str], trustml_here: Cli, tmp_path: Path, strangers: Path
) -> None:
    answer = trustml_here("--config-dir", "theirs", "task=attack", "trainer=smoke", *words)
    assert "allow=" not in answer.stderr
    assert (tmp_path / "it_ran").exists()


def test_a_job_of_a_sweep_is_refused_and_the_others_go_on(trustml_here: Cli, tmp_path: Path, strangers: Path) -> None:
    words = ["-m", "--config-dir", "theirs", "task=attack", *RUN, "task.epsilon=0.1", "task.check_images=0"]
    answer = trustml_here(*words, "attack=fgsm,theirs")
    assert answer.returncode == 2
    assert "1 of 2 jobs completed" in answer.stdout
    assert "allow=[stranger]" in answer.stderr
    assert not (tmp_path / "it_ran").exists()


def test_what_a_resumed_directory_allows_does_not_count(tmp_path: Path) -> None:
    task = ["attack=theirs", "allow=[stranger]", "+hydra.job.env_set.PATH=x"]
    saved = {"hydra": {"overrides": {"task": task, "hydra": ["+hydra.callbacks.x._target_=stranger.Evil"]}}}
    (tmp_path / "multirun.yaml").write_text(json.dumps(saved))
    here = f"hydra.sweep.dir='{tmp_path}'"
    assert resumed_words([f"resume={tmp_path}"], []) == ["attack=theirs", "resume=true", here, "--multirun"]
    again = ["attack=theirs", "allow=[a]", "resume=true", here, "--multirun"]
    assert resumed_words([f"resume={tmp_path}", "allow=[a]"], []) == again


@pytest.mark.parametrize("launcher", ["joblib", "slurm"])
def test_launchers_that_come_with_trustml_need_no_leave(launcher: str, trustml_here: Cli) -> None:
    answer = trustml_here("--cfg", "job", f"launcher={launcher}")
    assert answer.returncode == 0, answer.stderr


@given(st.text(max_size=8))
def test_a_quoted_text_is_read_by_hydra_as_it_was(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key=[{quoted(text)},1]")
    assert parsed.value() == [text, 1]


# Weights


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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"absurd\.safetensors cannot be read"):
        read_weights(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_weights_that_unpack_to_more_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "honest.pt")
    assert read_weights(tmp_path / "honest.pt")["w"].shape == (10**6,)
    packed = zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "honest.pt") as honest, packed:
        for name in honest.namelist():
            packed.writestr(name, honest.read(name))
    with pytest.raises(ValueError, match=r"bomb\.pt cannot be read .*compressed"):
        read_weights(tmp_path / "bomb.pt")


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
    with pytest.raises(ValueError, match=f"{name} (is no weights-only file|cannot be read)"):
        read_weights(tmp_path / name)
    assert not (tmp_path / "it_ran").exists()


# Archives, images


def test_an_archive_that_is_not_the_published_one_is_never_unpacked(trustml_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "payload").write_text("theirs")
    with tarfile.open(tmp_path / "data" / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "payload", "../outside")
    (tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b theirs")
    for dataset in ("cifar10", "mnist"):
        answer = trustml_here("task=train", f"dataset={dataset}", "data_dir=data", env=OFFLINE)
        assert answer.returncode == 2, answer.stderr
        assert "could not be downloaded" in answer.stderr
    assert not (tmp_path / "outside").exists()


def test_the_path_beside_a_parquet_image_is_neither_read_nor_written(trustml_here: Cli, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    Image.new("L", (8, 8)).save(tmp_path / "outside.png")
    content = (tmp_path / "outside.png").read_bytes()
    for name, image in (("none", None), ("whole", content)):
        rows = [{"bytes": image, "path": f"../{tmp_path.name}/{end}"} for end in ("outside.png", "made.png")] * 4
        table = arrow.table({"img": rows, "label": [0, 0, 1, 1] * 2})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    words = ["task=train", *RUN, "dataset=parquet", "dataset.size=8"]
    answer = trustml_here(*words, "dataset.train=none.parquet", "dataset.test=none.parquet")
    assert answer.returncode == 2
    assert "none.parquet row 0: img holds no encoded image" in answer.stderr
    answer = trustml_here(*words, "dataset.train=whole.parquet", "dataset.test=whole.parquet")
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


def folder_of_images(root: Path, names: list[str], count: int = 1) -> None:
    """Images that differ from class to class, in the layout of dataset=image_folder."""
    for split in ("train", "test"):
        for level, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), 20 * level + number).save(root / split / name / f"{number}.png")


@pytest.mark.parametrize("side", [10_000, pytest.param(50_000, marks=pytest.mark.faults)])
def test_an_image_bomb_is_refused_by_name(side: int, trustml_here: Cli, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "images", ["a", "b"])
    (tmp_path / "images" / "train" / "b" / "bomb.png").write_bytes(black(side))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = ["dataset=image_folder", "dataset.root=images", "dataset.size=8"]
    answer = trustml_here("task=train", *RUN, *words)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "images/train/b/bomb.png" in answer.stderr
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    )  # kB; one bit a pixel is 300 MB at most
    answer = trustml_here("task=backdoor", *RUN, "trigger.image=images/train/b/bomb.png")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "trigger.image" in answer.stderr


def test_a_picture_that_is_a_program_is_no_picture(trustml_here: Cli, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "images", ["a", "b"])
    Image.new("L", (8, 8)).save(tmp_path / "program.eps")
    (tmp_path / "images" / "train" / "b" / "picture.png").write_bytes((tmp_path / "program.eps").read_bytes())
    answer = trustml_here("task=train", *RUN, "dataset=image_folder", "dataset.root=images", "dataset.size=8")
    assert answer.returncode == 2
    assert "images/train/b/picture.png cannot be read as an image" in answer.stderr


# Names


NAMES = [
    '=HYPERLINK("http://x")',
    "<script>alert(1)<",
    "+1+1",
    "@SUM(1)",
    "-2+3",
    "\tx",
    "'=1",
    "$\\frac$ _^",
    "été 猫",
]


def test_names_are_no_formulas_no_html_and_no_mathematics(trustml_here: Cli, tmp_path: Path) -> None:
    names = sorted(name.replace("/", "∕") for name in NAMES)
    folder_of_images(tmp_path / "images", names, count=4)
    swept = [name for name in names if name.startswith(("=", "<", "@", "é"))]
    answer = trustml_here(
        "-m", "task=ood", *RUN, "dataset=image_folder", "dataset.root=images", "dataset.size=8", "detector=msp",
        f"task.holdout={','.join(map(quoted, swept))}",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    (sweep,) = (tmp_path / "outputs" / "multirun").iterdir()
    assert {run.metrics.outliers[0] for run in read_runs(sweep)} == set(swept)  # our own readers see the names
    trustml_here("runs", "--csv", "runs.csv")
    trustml_here("report", "outputs")
    tables = [*tmp_path.glob("outputs/**/*.csv"), tmp_path / "runs.csv"]
    texts = [io.StringIO(table.read_bytes().decode(), newline="") for table in tables]
    cells = [cell for text in texts for row in csv.reader(text) for cell in row]
    assert all(f"'{name}" in cells or not name.startswith(FORMULA) for name in swept)
    assert not [cell for cell in cells if harmless(cell) != cell and not cell.startswith("'")]
    pages = [*tmp_path.glob("outputs/**/*.html"), tmp_path / "comparison.html"]
    assert len(pages) == len(swept) + 2
    assert all("<script>alert" not in page.read_text() for page in pages)
    assert any("&lt;script&gt;alert" in page.read_text() for page in pages)


@given(st.text(max_size=5) | st.integers() | st.floats() | st.none() | st.sampled_from(["-1", "+1e3", "'-1", "''='"]))
def test_a_value_comes_back_and_is_no_formula(value: Any) -> None:
    cell = harmless(value)
    assert as_it_was(cell) == value or value != value
    if isinstance(cell, str) and cell.startswith(FORMULA):
        assert cell.startswith("'") or float(cell) is not None


def test_a_table_comes_back(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {"=name": ["=1+1", "plain", "'quoted", "-x"], "value": [-1.5, 2, 3, 4], "n": [-1, 2, 3, 4]}
    )
    (tmp_path / "table.csv").write_text(as_csv(table))
    assert (tmp_path / "table.csv").read_text().splitlines()[:2] == ["'=name,value,n", "'=1+1,-1.5,-1"]
    pandas.testing.assert_frame_equal(read_csv(tmp_path / "table.csv"), table)
    (tmp_path / "empty.csv").write_text(as_csv(pandas.DataFrame(columns=["a", "b"])))
    assert list(read_csv(tmp_path / "empty.csv").columns) == ["a", "b"]


def test_a_refusal_is_an_input_error() -> None:
    from trustml_cli.trust import refuse

    for name in ("trustml_cli.attacks.fgsm.FGSM", "mine.net:small", "mine"):
        refuse("attack._target_", name, ["trustml_cli", "mine"])
    for name in ("trustml_clip.It", "minerals.It", "trustml", "", "${mine}"):
        with pytest.raises(InputError, match="allow="):
            refuse("attack._target_", name, ["trustml_cli", "mine"])
