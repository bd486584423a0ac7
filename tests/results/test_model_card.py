"""The model card of a study, as the Hugging Face hub's own client reads it."""

import json
from pathlib import Path

import pandas
import pytest

from trustml_cli.results.aggregate import Run, read_run
from trustml_cli.results.model_card import model_card
from trustml_cli.results.study import Measured, Study

MEASURED = [
    Measured("accuracy", "right", "accuracy | <b>", "accuracy", 0.9375, 0.9, 0.96, 400, verdict=""),
    Measured("fast", "robust", "robust accuracy", "robust", 0.25, limit="at least 0.4", verdict="does not hold"),
    Measured("patch", "one", "patch", "success_rate", verdict="not measured", why="needs images"),
]  # fmt: skip


def run_of(folder: Path, shape: list[int]) -> Run:
    facts = {"status": "completed", "model": "mlp", "dataset": "digits", "data": {"shape": shape}}
    (folder / "run.json").write_text(json.dumps(facts))
    pandas.DataFrame([{"accuracy": 0.9}]).to_csv(folder / "metrics.csv", index=False)
    return read_run(folder)


@pytest.mark.parametrize(("shape", "kind"), [([1, 8, 8], "image-classification"), ([14], "tabular-classification")])
def test_the_hub_reads_the_figures(shape: list[int], kind: str, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = tmp_path / "README.md"
    card.write_text(model_card(Study("How far?", {}), [run_of(tmp_path, shape)], MEASURED), encoding="utf-8")
    read = hub.ModelCard.load(card)
    assert read.data.model_name == "mlp"
    results = read.data.eval_results
    assert [(one.metric_type, one.metric_value, one.verified) for one in results] == [
        ("accuracy", 0.9375, False), ("robust", 0.25, False),
    ]  # fmt: skip
    assert results[1].metric_name == "fast: robust accuracy"
    assert {(one.task_type, one.dataset_type, one.dataset_name) for one in results} == {(kind, "digits", "digits")}
    assert "| accuracy | accuracy \\| &lt;b&gt; | 93.8 % | 90.0 to 96.0 % | 400 |  |  |" in read.text
    assert "| fast | robust accuracy | 0.25 |  | – | at least 0.4 | does not hold |" in read.text
    assert "not measured: needs images" in read.text
