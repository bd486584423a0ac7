"""docs/notebook.ipynb, executed by a kernel of its own."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.mark.faults
def test_the_notebook_of_the_docs_runs_and_shows_what_it_says(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUSTML_CACHE_DIR", str(cache_dir))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # outputs are not committed
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}) for output in outputs]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert "fgsm: mlp on digits" in pages[0]
    assert "data:image/png;base64," in pages[0]
    assert "robust_accuracy_ci_low" in pages[1]
    assert pages[1].count("<td>450</td>") == 4  # n, for each epsilon
    assert any("image/png" in data for data in shown)  # the notebook's own picture
    assert any("4 jobs" in page for page in pages)
    texts = "".join(output.get("text", "") for output in outputs)
    assert "model=cifar_cn: no such model; did you mean 'cifar_cnn'?" in texts
    assert len(list(tmp_path.glob("outputs/**/run.json"))) == 5
