"""task=credibility through the command line: its rows are worked out again from what it saves for each image."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from tests.helpers import Cli, facts, measured, metrics, newest

KINDS = ["clean", "noisy", "rotated", "fgsm", "adaptive", "noise"]


def test_rows_follow_from_what_is_saved_for_each_image(trustml: Cli, tmp_path: Path) -> None:
    words = ["model=mlp", "trainer=smoke", "task.images=120", "task.epsilon=0.1", "task.layers=2"]
    answer = trustml("task=credibility", *words)
    assert answer.returncode == 0, answer.stderr
    folder = newest(tmp_path)
    table = metrics(folder).set_index("images")
    assert list(table.index) == KINDS
    saved = load_file(folder / "artifacts" / "credibility.safetensors")
    for kind, row in table.iterrows():
        credibility = saved[f"{kind}.credibility"].numpy()
        assert len(credibility) == 120
        assert saved[f"{kind}.credibility_by_layer"].shape == (2, 120)
        assert row.mean_credibility == pytest.approx(credibility.mean())
        assert row.mean_confidence == pytest.approx(saved[f"{kind}.confidence"].mean())
        assert row.flagged_rate == (credibility <= 0.05).mean()
        if kind != "noise":
            right = saved["clean.dknn_predicted"].eq(saved[f"{kind}.dknn_predicted"]).double().mean().item()
            assert row.dknn_accuracy == pytest.approx(right, abs=1 - table.dknn_accuracy["clean"])
            assert row.deceived_rate <= 1 - row.dknn_accuracy + 1e-9
        if kind != "clean":
            is_other = np.repeat([0, 1], 120)
            for name, column in (("credibility", "auroc"), ("msp", "auroc_msp"), ("knn", "auroc_knn")):
                both = np.concatenate([saved[f"{one}.{name}"].numpy() for one in ("clean", kind)])
                expected = roc_auc_score(is_other, -both if name == "credibility" else both)
                assert row[column] == pytest.approx(expected)
                assert row[f"{column}_ci_low"] <= row[column] <= row[f"{column}_ci_high"]
    assert table.accuracy["clean"] > 0.8
    assert table.accuracy["fgsm"] < table.accuracy["clean"] - 0.3
    assert table.deceived_rate["adaptive"] > table.deceived_rate["fgsm"] > table.deceived_rate["clean"]
    assert table.accuracy.isna().to_dict() == {kind: kind == "noise" for kind in KINDS}
    assert table.auroc["noise"] > 0.8
    assert table.mean_credibility["adaptive"] > table.mean_credibility["fgsm"]  # it finds support for its answer
    assert all(check["passed"] for check in facts(folder)["checks"])
    pictures = {"auroc", "credibility", "layers", "reliability", "neighbours"}
    assert {path.stem for path in (folder / "plots").iterdir()} == pictures


@pytest.mark.data
def test_credibility_tells_attacked_and_noisy_digits(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    table = measured(trustml, tmp_path, data_dir, "experiment=credibility_mnist").set_index("images")
    assert table.auroc["fgsm"] >= 0.9
    assert table.auroc["noise"] >= 0.98
    assert table.dknn_accuracy["clean"] >= 0.95
    assert table.deceived_rate["adaptive"] > table.deceived_rate["fgsm"]
