"""The run directory: what lies in it while a run goes on, and after it has ended."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file

from trustml_cli.metrics.columns import conditions, higher, lower, neither
from trustml_cli.metrics.intervals import proportion
from trustml_cli.results.provenance import LIBRARIES
from trustml_cli.results.recorder import Recorder
from trustml_cli.system.errors import InputError
from trustml_cli.training.trainer import Epoch


def recorder(directory: Path) -> Recorder:
    choices = {"trainer": "smoke", "model": "logistic", "task": "fgsm", "dataset": "digits"}
    return Recorder(directory, choices, seed=7, config="seed: 7  # Größe\n", command=["trustml", "seed=7"])


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder that was started; whatever a test does with it leaves no partial file."""
    record = recorder(tmp_path)
    record.start()
    yield record
    assert [path.name for path in tmp_path.rglob(".*")] == []


def facts(record: Recorder) -> dict[str, Any]:
    return json.loads((record.directory / "run.json").read_text(encoding="utf-8"))


def table(record: Recorder, name: str) -> list[list[str]]:
    with (record.directory / name).open(newline="") as file:
        return list(csv.reader(file))


def epoch(number: int, **more: Any) -> Epoch:
    return Epoch(epoch=number, train_loss=0.5, train_accuracy=0.75, test_loss=0.25, test_accuracy=1.0, lr=0.1,
                 seconds=2.0, images=64, **more)  # fmt: skip


def test_a_run_says_that_it_is_running_from_the_start(record: Recorder) -> None:
    known = facts(record)
    expected = {"status": "running", "command": ["trustml", "seed=7"], "task": "fgsm", "dataset": "digits",
                "model": "logistic", "seed": 7}  # fmt: skip
    assert {key: known[key] for key in expected} == expected
    assert set(known["libraries"]) == set(LIBRARIES)
    assert known["libraries"]["torch"] == torch.__version__.partition("+")[0]
    assert known["started"].endswith("+00:00")
    assert "exit_code" not in known
    assert (record.directory / "config.yaml").read_text(encoding="utf-8") == "seed: 7  # Größe\n"


@pytest.mark.parametrize(("status", "exit_code", "error"), [("completed", 0, None), ("failed", 1, "loss became nan")])
def test_a_run_says_how_it_ended(record: Recorder, status: str, exit_code: int, error: str | None) -> None:
    record.finish(status, exit_code, error)
    known = facts(record)
    assert (known["status"], known["exit_code"], known.get("error")) == (status, exit_code, error)
    assert 0 <= known["seconds"] < 60
    assert 10 < known["peak_memory_mb"]["cpu"] < 1e6
    assert known["command"] == ["trustml", "seed=7"], "what was known at the start is still there"


def test_a_directory_belongs_to_one_run(record: Recorder) -> None:
    before = facts(record)
    other = recorder(record.directory)
    other.facts["job"] = 3  # known before it begins
    with pytest.raises(InputError, match=r"^hydra\.run\.dir: .* holds a run already; choose another$"):
        other.start()
    other.finish("failed", 2, error="holds a run already")
    assert facts(record) == before


def test_a_run_is_done_again_only_after_it_has_ended(record: Recorder) -> None:
    record.metrics(accuracy=0.9)
    record.table("layers", [{"layer": 1}])
    with pytest.raises(InputError, match=r"^resume: the run in .* is still at work"):
        recorder(record.directory).start(again=True)
    assert (record.directory / "metrics.csv").exists()
    record.finish("failed", 1, error="killed")
    again = recorder(record.directory)
    again.start(again=True)
    assert not list(record.directory.glob("*.csv"))
    assert facts(again)["status"] == "running"


def test_rows_begin_with_what_the_run_is_and_are_kept_as_they_come(record: Recorder) -> None:
    record.metrics(epsilon=0.0, accuracy=0.9)
    header = ["task", "dataset", "model", "seed", "epsilon", "accuracy"]
    first = ["fgsm", "digits", "logistic", "7", "0.0", "0.9"]
    assert table(record, "metrics.csv") == [header, first]
    record.metrics(epsilon=0.1, accuracy=1 / 3)
    second = [*first[:4], "0.1", "0.3333333333333333"]
    assert table(record, "metrics.csv") == [header, first, second]


def test_a_proportion_is_a_column_with_its_interval_and_its_count(record: Recorder) -> None:
    """R says for 9 of 10: prop.test(9, 10, correct = FALSE)$conf.int is 0.5958, 0.9821."""
    record.metrics({"epsilon": 0.1}, **proportion("robust_accuracy", 9, 10))
    header, row = table(record, "metrics.csv")
    names = ["robust_accuracy", "robust_accuracy_ci_low", "robust_accuracy_ci_high", "robust_accuracy_n"]
    assert header[4:] == ["epsilon", *names]
    assert [float(cell) for cell in row[4:]] == pytest.approx([0.1, 0.9, 0.5958, 0.9821, 10], abs=5e-5)


def test_a_column_that_only_some_rows_have_is_empty_in_the_others(record: Recorder) -> None:
    record.metrics(method="a")
    record.metrics(method="b", queries=3)
    assert [row[4:] for row in table(record, "metrics.csv")] == [["method", "queries"], ["a", ""], ["b", "3"]]


def test_a_condition_that_only_later_rows_have_is_one_and_stands_before_the_values(record: Recorder) -> None:
    record.metrics({"images": "clean"}, accuracy=1.0)
    record.metrics({"images": "fgsm", "epsilon": 0.25}, accuracy=0.5)
    header, clean, attacked = (row[4:] for row in table(record, "metrics.csv"))
    assert (header, clean, attacked) == (
        ["images", "epsilon", "accuracy"],
        ["clean", "", "1.0"],
        ["fgsm", "0.25", "0.5"],
    )
    assert facts(record)["conditions"] == ["images", "epsilon"]


def test_a_column_that_the_task_does_not_declare_is_refused(record: Recorder) -> None:
    record.columns = (*conditions("epsilon"), *higher("accuracy"))
    record.metrics({"epsilon": 0.1}, **proportion("accuracy", 9, 10))
    before = (record.directory / "metrics.csv").read_bytes()
    for condition, values, words in (
        ({"epsilon": 0.2}, {"acuracy": 0.9}, "acuracy: the task declares no such value"),
        ({"epsilon": 0.2}, {"acuracy_n": 9, "accuracy": 0.9}, "acuracy_n: the task declares no such value"),
        ({"accuracy": 0.2}, {}, "accuracy: the task declares no such condition"),
        ({}, {"epsilon": 0.2}, "epsilon: the task declares no such value"),
    ):
        with pytest.raises(LookupError, match=f"^{words}"):
            record.metrics(condition, **values)
    assert (record.directory / "metrics.csv").read_bytes() == before


def test_a_run_says_which_way_its_columns_are_better(record: Recorder) -> None:
    record.columns = (*conditions("stage"), *higher("p_rule_{attribute}"), *lower("loss"), *neither("size"))
    record.metrics({"stage": "a"}, **proportion("p_rule_sex", 9, 10), size=3)
    assert facts(record)["better"] == {"p_rule_sex": "higher"}
    record.metrics({"stage": "b"}, p_rule_native_country=0.5, loss=1.0)
    assert facts(record)["better"] == {"p_rule_sex": "higher", "p_rule_native_country": "higher", "loss": "lower"}


def test_a_table_of_other_rows_stands_beside_them(record: Recorder) -> None:
    record.table("layers", [{"layer": "1", "ms": 0.5}, {"layer": "all", "ms": 2.0}])
    assert table(record, "layers.csv") == [["layer", "ms"], ["1", "0.5"], ["all", "2.0"]]


def test_the_history_has_a_row_per_epoch_and_validation_only_where_there_was_one(record: Recorder) -> None:
    record.history(epoch(1))
    header = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "seconds", "images"]
    assert table(record, "history.csv") == [header, ["1", "0.5", "0.75", "0.25", "1.0", "0.1", "2.0", "64"]]
    record.history(epoch(2, validation_loss=0.125, validation_accuracy=0.5))
    first, *rows = table(record, "history.csv")
    assert first == [*header, "validation_loss", "validation_accuracy"]
    assert [(row[0], *row[8:]) for row in rows] == [("1", "", ""), ("2", "0.125", "0.5")]


def test_the_history_names_the_network_where_a_run_trains_more_than_one(record: Recorder) -> None:
    record.history(epoch(1), stage="clean")
    record.history(epoch(1), stage="poisoned")
    record.history(epoch(1), stage="clean")  # of the same network, which the run asks for again
    first, *rows = table(record, "history.csv")
    assert first[:2] == ["network", "epoch"]
    assert [row[:2] for row in rows] == [["clean", "1"], ["poisoned", "1"]]


def test_checks_land_in_run_json_one_after_the_other(record: Recorder) -> None:
    record.check("gradients are not zero", True, "0 of 32 are")
    assert facts(record)["checks"] == [{"name": "gradients are not zero", "passed": True, "figure": "0 of 32 are"}]
    record.check("accuracy does not rise", None, "one epsilon only")
    record.check("within budget", False, "0.2 > 0.1")
    assert [check["passed"] for check in facts(record)["checks"]] == [True, None, False]


def test_facts_are_added_and_replaced(record: Recorder) -> None:
    record.note(model_key="abc", device="cpu")
    record.note(device="cuda:0")
    known = facts(record)
    assert (known["model_key"], known["device"], known["status"]) == ("abc", "cuda:0", "running")


@pytest.mark.renders
def test_plots_are_saved_by_name(record: Recorder) -> None:
    figure = Figure()
    figure.subplots().plot([0, 1])
    record.plot("curve", figure)
    assert (record.directory / "plots" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_fails_leaves_no_half_of_it(record: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(figure: Figure, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("trustml_cli.plots.style.save", save)
    with pytest.raises(OSError, match="disk full"):
        record.plot("curve", Figure())
    assert list((record.directory / "plots").iterdir()) == []


def test_artifacts_keep_tensors_exactly_though_they_share_memory(record: Recorder) -> None:
    images = torch.rand(6, 3, 4, 4).requires_grad_()
    path = record.artifact("examples", {"images": images, "first": images[:2], "transposed": images.mT})
    assert path == record.directory / "artifacts" / "examples.safetensors"
    read = load_file(path)
    assert torch.equal(read["images"], images)
    assert torch.equal(read["first"], images[:2])
    assert torch.equal(read["transposed"], images.mT)


HOSTILE = ["sex/gender", "a/../../../../../evil", "..", ".hidden", "", "\0", "x" * 400, "ü" * 200]


def test_names_from_data_are_files_of_the_run(record: Recorder) -> None:
    before = {path for path in record.directory.parent.rglob("*") if record.directory not in path.parents}
    for name in HOSTILE:
        record.plot(name, Figure())
        record.artifact(name, {"a": torch.zeros(1)})
        record.table(name, [{"a": 1}])
    written = [path for path in record.directory.rglob("*") if path.suffix in (".png", ".safetensors", ".csv")]
    folders = ["plots", "artifacts", record.directory.name] * len(HOSTILE)
    assert sorted(path.parent.name for path in written) == sorted(folders)
    assert {path for path in record.directory.parent.rglob("*") if record.directory not in path.parents} == before
    record.finish("completed", 0)
    record = recorder(record.directory)
    record.start(again=True)
    assert not any(path.exists() for path in written), "whatever their names, a run that is done again removes them"
