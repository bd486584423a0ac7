"""The results say what its runs measured, and what the study asks for now."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Cli, metrics
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.results.study import Item

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """docs/results.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    import results  # type: ignore[import-not-found]

    yield results
    sys.modules.pop("results")


def test_the_page_is_its_numbers_and_each_is_what_the_study_asks_for(writer: Any) -> None:
    numbers, items = json.loads((DOCS / "results.json").read_text()), writer.items()
    assert (DOCS / "results.md").read_text() == writer.page(numbers, items), "make results writes the page"
    assert writer.MARKED.findall(writer.README.read_text()) == [writer.table(numbers, items)]
    assert numbers
    for name, number in numbers.items():
        assert number["command"] == writer.command(items[name]), name
        assert list(number["figures"]) == list(items[name].figures), name


def test_the_command_of_an_item_is_what_a_shell_takes(writer: Any) -> None:
    assert writer.command(Item("?", ["task=fgsm", "seed=0,1"])) == "trustml -m task=fgsm seed=0,1"
    assert writer.command(Item("?", ["task.epsilon=[0,1]"])) == "trustml 'task.epsilon=[0,1]'"


def test_numbers_are_those_of_the_runs_and_others_stay(
    writer: Any, trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FOLDER", tmp_path)
    monkeypatch.setattr(writer, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("Before\n<!-- written by make results -->\nold\n<!-- end -->\nafter\n")
    kept = {"mnist_cnn": json.loads((DOCS / "results.json").read_text())["digits_fgsm"]}
    (tmp_path / "results.json").write_text(json.dumps({**kept, "no_longer_asked": {}}))
    words = ["task=fgsm", "model=logistic", "trainer=smoke", "task.epsilon=0.1", "task.check_images=0"]
    assert trustml(*words, f"hydra.run.dir={tmp_path}/runs/digits_fgsm").returncode == 0
    shutil.copytree(tmp_path / "runs" / "digits_fgsm", tmp_path / "runs" / "mnist_logistic")  # lacks its item's figure
    writer.main([str(tmp_path / "runs")])
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert list(numbers) == ["digits_fgsm", "mnist_cnn"]
    row = metrics(tmp_path / "runs" / "digits_fgsm").iloc[-1]
    robust = numbers["digits_fgsm"]["figures"]["robust"]
    assert (robust["value"], robust["n"]) == (row.robust_accuracy, row.robust_accuracy_n)
    assert numbers["mnist_cnn"] == kept["mnist_cnn"]
    page = (tmp_path / "results.md").read_text()
    assert f"| robust accuracy | {in_percent(row.robust_accuracy)}" in page
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("Before\n")
    assert readme.endswith("<!-- end -->\nafter\n")
    assert "old" not in readme
    assert "| MNIST, five convolutions | " in readme
    assert "- MNIST, logistic regression in PyTorch\n" in page.partition("## Not measured")[2]
