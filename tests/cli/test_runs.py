"""`trustml runs`: what it lists, finds, sorts and exports, from run directories written by hand and by real runs."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from tests.helpers import Cli, leave_run
from trustml_cli.cli.runs import Listed, export, lines, ordered, selected
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.results.aggregate import read_runs
from trustml_cli.results.recorder import Recorder
from trustml_cli.system.errors import InputError


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Four runs: a curve, a comparison, one row with its interval, a failure; and what a listing must pass over."""
    folder = tmp_path / "outputs"
    curve = "attack,epsilon,robust_accuracy\nfgsm,0.3,0.031\nfgsm,0.0,0.99784\nfgsm,0.10,0.5\n"
    leave_run(folder / "fgsm" / "a", curve, "task:\n  epsilon: [0, 0.1, 0.3]\ntrainer: {lr: 0.01}\n",
              conditions=["attack", "epsilon"], headline="robust_accuracy", choices={"attack": "fgsm"})  # fmt: skip
    leave_run(folder / "ood" / "b", "score,fpr\nmsp,0.5\nknn,0.25\nodin,0.75\n", "trainer: {lr: 1e-3}\n",
              task="ood", conditions=["score"], headline="fpr", seconds=9.5)  # fmt: skip
    row = "test_accuracy,test_accuracy_ci_low,test_accuracy_ci_high\n0.9,0.88,0.92\n"
    leave_run(folder / "multirun" / "sweep" / "c", row, task="train", model="cnn", headline="test_accuracy", seed=10,
              command=["trustml", "trainer=smoke", "trainer.lr=0.10"], seconds=120)  # fmt: skip
    leave_run(folder / "train" / "d", task="train", status="failed", error="training diverged: the loss became nan")
    leave_run(folder / ".copies" / "a", task="copied")
    leave_run(folder / "fgsm" / "a" / "artifacts" / "a", task="copied")
    return folder


@pytest.mark.parametrize(
    ("table", "conditions", "expected"),
    [
        ("epsilon,on,f\n0.1,mlp,0.5\n0.1,cnn,0.25\n0.2,mlp,0.75\n", ["epsilon", "on"],
         "f 0.25 (epsilon 0.1, cnn) to 0.75 (epsilon 0.2, mlp)"),
        ("epsilon,f,f_ci_low,f_ci_high\n0.1,nan,0,1\n0.2,0.5,0.4,0.6\n0.3,,,\n", ["epsilon"], "f 0.5 (0.4 to 0.6)"),
        ("epsilon,f\n0.1,\n", ["epsilon"], ""),
        ("epsilon,g\n0.1,1\n", ["epsilon"], ""),
    ],
)  # fmt: skip
def test_a_headline_under_several_conditions_names_them(
    table: str, conditions: list[str], expected: str, tmp_path: Path
) -> None:
    leave_run(tmp_path / "run", table, conditions=conditions, headline="f")
    assert [one.figure for one in selected(read_runs(tmp_path), [])] == [expected]


def names(listed: list[Listed]) -> list[str]:
    return [one.run.folder.name for one in listed]


def test_every_run_is_a_line_with_its_headline_in_a_few_words(outputs: Path) -> None:
    listed = {one.run.folder.name: one for one in selected(read_runs(outputs), [])}
    assert sorted(listed) == ["a", "b", "c", "d"]
    assert {name: one.figure for name, one in listed.items()} == {
        "a": "robust_accuracy 99.8 to 3.1 % (epsilon 0 to 0.3)",
        "b": "fpr 0.25 (knn) to 0.75 (odin)",
        "c": "test_accuracy 90.0 % (88.0 to 92.0 %)",
        "d": "training diverged: the loss became nan",
    }
    head, first, *_ = lines(selected(read_runs(outputs / "train"), []))
    assert head == ["when", "task", "model", "dataset", "status", "headline", "directory"]
    when, *rest = first
    assert when.startswith("2026-01-0")
    assert rest == ["train", "mlp", "digits", "failed", "training diverged: the loss became nan",
                    str(outputs / "train" / "d")]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["task=fgsm"], "a"),
        (["seed=10"], "c"),
        (["status=completed", "model=mlp"], "ab"),
        (["status=killed"], ""),
        (["attack=fgsm"], "a"),  # a choice that the command line did not name
        (["trainer=smoke"], "c"),
        (["trainer.lr=0.01"], "a"),
        (["trainer.lr=1e-2"], "a"),
        (["trainer.lr=0.001"], "b"),
        (["trainer.lr=0.1"], "c"),  # there is no config.yaml: what the command line said
        (["task.epsilon=[0,0.1,0.3]"], "a"),
        (["task.epsilon=0.1"], ""),
        (["score=odin"], "b"),
    ],
)
def test_words_find_the_runs_in_which_they_hold(outputs: Path, words: list[str], expected: str) -> None:
    assert sorted(names(selected(read_runs(outputs), words))) == list(expected)


def test_a_key_that_no_run_has_is_an_error_with_the_nearest(outputs: Path) -> None:
    with pytest.raises(InputError, match=r"^tsk: no run here has such a key; did you mean 'task'\?$"):
        selected(read_runs(outputs), ["tsk=fgsm"])
    with pytest.raises(InputError, match=r"^xyz123: no run here has such a key; see its config\.yaml$"):
        ordered(selected(read_runs(outputs), []), "xyz123", descending=False)


@pytest.mark.parametrize(
    ("key", "descending", "expected"),
    [
        ("headline", False, "abcd"),  # 0.031 at the largest epsilon, 0.75 the highest, 0.9, none
        ("headline", True, "cbad"),
        ("seconds", True, "cbad"),  # as numbers: 120 above 9.5
        ("trainer.lr", False, "bacd"),
    ],
)
def test_sorting_is_by_number_and_missing_ones_come_last(
    outputs: Path, key: str, descending: bool, expected: str
) -> None:
    listed = sorted(selected(read_runs(outputs), []), key=lambda one: one.run.folder.name)
    assert names(ordered(listed, key, descending)) == list(expected)


def test_the_export_says_the_same_as_the_files(outputs: Path) -> None:
    file = io.StringIO()
    export(selected(read_runs(outputs), []), file)
    file.seek(0)
    rows = {Path(row["directory"]).name: row for row in csv.DictReader(file)}
    assert sorted(rows) == ["a", "b", "c", "d"]
    assert (rows["a"]["headline"], float(rows["a"]["value"])) == ("robust_accuracy", 0.031)
    assert (rows["c"]["value"], rows["c"]["seed"], rows["c"]["seconds"]) == ("0.9", "10", "120")
    assert (rows["d"]["value"], rows["d"]["error"]) == ("", "training diverged: the loss became nan")


@pytest.mark.parametrize(
    ("text", "status", "figure"),
    [
        ("", "killed", ""),
        ("{", "unreadable", "run.json: Expecting property name"),
        ('{"task": "tra', "unreadable", "run.json: Unterminated string"),
        ("[]", "unreadable", "run.json: must be a mapping, got []"),
        ("null", "unreadable", "run.json: must be a mapping, got None"),
        ("\ud800", "unreadable", "run.json: is not UTF-8 text (byte 0)"),
    ],
)
def test_files_that_are_not_whole_break_nothing(tmp_path: Path, text: str, status: str, figure: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "metrics.csv", "config.yaml"):
        (run / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    (one,) = selected(read_runs(tmp_path), [])
    assert (one.run.status, one.columns["task"]) == (status, None)
    assert one.figure.startswith(figure)
    assert lines([one])[1][-1] == str(run)
    assert selected([one.run], [f"status={status}"])


def recorder(folder: Path) -> str:
    """Code of a process that begins a run in `folder` and says so."""
    return (
        "from pathlib import Path; from trustml_cli.results.recorder import Recorder\n"
        "choices = {'task': 'train', 'dataset': 'digits', 'model': 'mlp'}\n"
        f"record = Recorder(Path({str(folder)!r}), choices, 0, 'seed: 0', ['trustml'])\n"
        "record.start(); print('begun', flush=True); input()"
    )


def test_a_run_that_goes_on_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", recorder(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert [run.status for run in read_runs(tmp_path)] == ["running"]
    process.kill()
    process.communicate()
    assert [run.status for run in read_runs(tmp_path)] == ["killed"]


def test_a_run_of_this_process_that_ended_is_let_go(tmp_path: Path) -> None:
    record = Recorder(tmp_path, {"task": "train", "dataset": "digits", "model": "mlp"}, 0, "seed: 0", ["trustml"])
    before = len(list(Path("/dev/fd").iterdir()))
    record.start()
    assert [run.status for run in read_runs(tmp_path)] == ["running"]
    record.finish("completed", 0)
    assert [run.status for run in read_runs(tmp_path)] == ["completed"]
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_real_runs_are_listed_as_they_are(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=fgsm", "model=logistic", "trainer=smoke", "dataset.limit=200", "task.check_images=0"]
    trustml(*words, "task.epsilon=[0,0.1]")
    trustml(*words, "task.epsilon=-1")
    (measured,) = tmp_path.rglob("metrics.csv")
    first, last = pandas.read_csv(measured).robust_accuracy
    answer = trustml("runs", "trainer=smoke", "task.epsilon=[0,0.1]", "attack=fgsm")
    assert answer.returncode == 0
    (_, line) = answer.stdout.splitlines()
    assert line.endswith(str(measured.parent.relative_to(tmp_path)))
    assert f"robust_accuracy {in_percent(first).removesuffix(' %')} to {in_percent(last)} (epsilon 0 to 0.1)" in line
    assert trustml("runs", "--csv", "all.csv").stdout == "2 runs are in all.csv\n"
    exported = pandas.read_csv(tmp_path / "all.csv")
    assert exported.status.tolist() == ["failed", "completed"]  # the newest first
    assert exported.value[1] == last
    assert exported.directory[1] == str(measured.parent.relative_to(tmp_path))
    assert trustml("runs", "--csv", "-", "--reverse", "--limit", "1").stdout.count("completed") == 1
