"""Names from strangers are no formulas, no HTML and no mathematics."""

import csv
import io
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.images import folder_of_images
from tests.helpers import Cli
from trustml_cli.config.messages import quoted
from trustml_cli.results.aggregate import read_runs
from trustml_cli.results.csv_files import FORMULA, as_csv, escape_formula, read_csv, unescape_formula
from trustml_cli.system.printable import CONTROLS, printable_value

RUN = ["trainer=smoke", "model=logistic"]


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


@pytest.mark.faults
def test_names_are_no_formulas_no_html_and_no_mathematics(trustml: Cli, tmp_path: Path) -> None:
    names = sorted(name.replace("/", "∕") for name in NAMES)
    folder_of_images(tmp_path / "images", names, count=4)
    swept = [name for name in names if name.startswith(("=", "<"))]
    answer = trustml(
        "-m", "task=ood", *RUN, "dataset=image_folder", "dataset.root=images", "dataset.size=8", "detector=msp",
        f"task.holdout={','.join(map(quoted, swept))}",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    (sweep,) = (tmp_path / "outputs" / "multirun").iterdir()
    assert {run.metrics.outliers[0] for run in read_runs(sweep)} == set(swept)  # our own readers see the names
    trustml("runs", "--csv", "runs.csv")
    trustml("report", "outputs")
    tables = [*tmp_path.glob("outputs/**/*.csv"), tmp_path / "runs.csv"]
    texts = [io.StringIO(table.read_bytes().decode(), newline="") for table in tables]
    cells = [cell for text in texts for row in csv.reader(text) for cell in row]
    assert all(f"'{name}" in cells or not name.startswith(FORMULA) for name in swept)
    assert not [cell for cell in cells if escape_formula(cell) != cell and not cell.startswith("'")]
    pages = [*tmp_path.glob("outputs/**/*.html"), tmp_path / "comparison.html"]
    assert len(pages) == len(swept) + 2
    assert all("<script>alert" not in page.read_text() for page in pages)
    assert any("&lt;script&gt;alert" in page.read_text() for page in pages)


@given(st.text(max_size=5) | st.integers() | st.floats() | st.none() | st.sampled_from(["-1", "+1e3", "'-1", "''='"]))
def test_a_value_comes_back_and_is_no_formula(value: Any) -> None:
    cell = escape_formula(value)
    assert unescape_formula(cell) == printable_value(value) or value != value
    assert not isinstance(cell, str) or not CONTROLS.search(cell)
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
