"""task=ood through the command line: its rows are worked out again from the scores that it saves."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from tests.configs import composed
from tests.helpers import Cli, MakeContext, facts, metrics, newest
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.ood.measure import evaluate
from trustml_cli.ood.separation import separation_intervals
from trustml_cli.tasks.detection import check_threshold
from trustml_cli.tasks.ood import in_words

SHORT = ["trainer=smoke", "model=mlp"]


def run(trustml: Cli, folder: Path, *words: str) -> tuple[Path, pandas.DataFrame]:
    answer = trustml(*words, "task=ood", *SHORT)
    assert answer.returncode == 0, answer.stderr
    return newest(folder), metrics(newest(folder), dtype={"outliers": str}).set_index("score")


def test_rows_follow_from_the_scores(trustml: Cli, tmp_path: Path) -> None:
    folder, table = run(trustml, tmp_path, "task.holdout=4", "task.quantile=0.9", "task.score=[knn,msp]")
    assert list(table.index) == ["knn", "msp"]
    assert table.outliers.eq("4").all()
    saved = load_file(folder / "artifacts" / "scores.safetensors")
    for name, row in table.iterrows():
        validation, inliers, outliers = (
            saved[f"{split}.{name}"].numpy() for split in ("validation", "inliers", "outliers")
        )
        assert len(validation) == 121  # a tenth of the 1,212 training images of the nine other digits
        assert row.threshold == pytest.approx(np.quantile(validation, 0.9, method="inverted_cdf"), abs=1e-12)
        assert row.inlier_rate == (inliers <= row.threshold).mean()
        assert row.outlier_inlier_rate == (outliers <= row.threshold).mean()
        assert (row.inlier_rate_n, row.outlier_inlier_rate_n) == (len(inliers), len(outliers)) == (405, 45)
        assert row.inlier_rate_ci_low < row.inlier_rate < row.inlier_rate_ci_high
        is_outlier, scores = np.repeat([0, 1], [405, 45]), np.concatenate([inliers, outliers])
        assert row.auroc == pytest.approx(roc_auc_score(is_outlier, scores))
        assert row.aupr == pytest.approx(average_precision_score(is_outlier, scores))
        fpr, tpr, _ = roc_curve(is_outlier, scores)
        assert row.fpr_at_95_tpr == row.fpr_at_95_tpr_outliers_positive == pytest.approx(fpr[tpr >= 0.95].min())
        fpr, tpr, _ = roc_curve(1 - is_outlier, -scores)
        assert row.fpr_at_95_tpr_inliers_positive == pytest.approx(fpr[tpr >= 0.95].min())
        assert row.aupr_outliers_positive == row.aupr
        assert row.aupr_inliers_positive == pytest.approx(average_precision_score(1 - is_outlier, -scores))
        ends = separation_intervals(torch.from_numpy(inliers), torch.from_numpy(outliers), seed=0)
        for measure, (low, high) in ends.items():
            assert (row[f"{measure}_ci_low"], row[f"{measure}_ci_high"]) == (pytest.approx(low), pytest.approx(high))
            assert low <= row[measure] <= high
        assert row.fpr_at_95_tpr_ci_high == row.fpr_at_95_tpr_outliers_positive_ci_high
        assert (row.auroc_n, row.fpr_at_95_tpr_n, row.fpr_at_95_tpr_inliers_positive_n) == (450, 405, 45)
    assert table.auroc["knn"] > 0.8
    msp = table.loc["msp"]
    assert facts(folder)["verdict"] == (
        f"A threshold that demands a largest softmax output of at least {-msp.threshold:.3f} lets "
        f"{in_percent(msp.inlier_rate)} of the known test images pass, "
        f"and {in_percent(msp.outlier_inlier_rate)} of the unseen class 4."
    )


def test_outliers_of_several_data_sets_are_told_of_by_name() -> None:
    found = {kind: evaluate(torch.arange(20.0), torch.zeros(4), torch.tensor([0.0, last]), 0.95)
             for kind, last in (("noise", 5.0), ("svhn", 30.0))}  # fmt: skip
    words = in_words({"knn": found}, "images of")
    assert "a score of knn of at most 18 lets 100 % of the known" in words
    assert "100 % of the unseen images of noise and 50.0 % of the unseen images of svhn" in words


@pytest.mark.parametrize(("hold_out", "seen"), [("true", "without=2, aside=0.25 seed=0"), ("false", "without=2")])
def test_the_network_has_one_class_fewer_and_has_not_seen_validation_images_that_are_held_out(
    hold_out: str, seen: str, trustml: Cli, tmp_path: Path, cache_dir: Path
) -> None:
    words = ["task.holdout=2", "task.validation_fraction=0.25", "task.score=msp", f"task.hold_out={hold_out}"]
    folder, _ = run(trustml, tmp_path, *words)
    stored = cache_dir / "models" / facts(folder)["model_key"]
    assert load_file(stored / "model.safetensors")["network.5.bias"].shape == (9,)
    recipe = json.loads((stored / "model.json").read_text())["recipe"]
    assert recipe["dataset"]["classes"] == 9
    assert recipe["dataset"]["fingerprint"].endswith(seen)


def test_scores_and_quantiles_share_a_network(trustml: Cli) -> None:
    words = ["task=ood", *SHORT, "seed=5"]
    assert "training model" in trustml(*words, "task.score=msp").stdout
    again = trustml(*words, "task.quantile=0.5", "task.score=odin", "detector.odin.temperature=10")
    assert again.returncode == 0
    assert "training model" not in again.stdout


@pytest.fixture
def own_choices(tmp_path: Path) -> Path:
    """A folder with a data set of one's own (random photographs) and a detector of one's own."""
    from PIL import Image

    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("left", "right"):
            folder = tmp_path / "photographs" / split / name
            folder.mkdir(parents=True)
            for number in range(15):
                Image.fromarray(random.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "photographs.yaml").write_text(
        "_target_: trustml_cli.data.image_folder.ImageFolder\n"
        f"root: {tmp_path / 'photographs'}\nsize: 12\nchannels: 3\nbackground: 1\nstream: never\nworkers: 0\n"
        "test_fraction: 0.2\n"
        "limit: null\n"
    )
    (tmp_path / "conf" / "detector").mkdir()
    (tmp_path / "conf" / "detector" / "hot.yaml").write_text(
        "# @package detector.hot\n_target_: trustml_cli.ood.energy.Energy\ntemperature: 1000\n"
    )
    return tmp_path / "conf"


def test_another_data_set_takes_the_held_out_classs_place(trustml: Cli, tmp_path: Path, own_choices: Path) -> None:
    folder, table = run(
        trustml, tmp_path, "--config-dir", str(own_choices), "task.ood_dataset=photographs", "detector=[knn,msp,hot]"
    )
    assert list(table.index) == ["knn", "msp", "hot"]
    assert table.outliers.eq("photographs").all()
    assert table.outlier_inlier_rate_n.eq(30).all()
    assert table.inlier_rate_n.eq(450).all()  # no class is left out
    assert table.auroc["knn"] > 0.95  # noise is nothing like digits
    written = (folder / "config.yaml").read_text()
    assert str(tmp_path / "photographs") in written  # the whole choice is on record, not its name alone


def test_each_of_several_data_sets_has_rows_of_its_own(trustml: Cli, tmp_path: Path, own_choices: Path) -> None:
    words = ["--config-dir", str(own_choices), "task.score=[knn,msp]"]
    near = (own_choices / "dataset" / "photographs.yaml").read_text().replace("size: 12", "size: 8")
    (own_choices / "dataset" / "small_noise.yaml").write_text(near)
    folder, both = run(trustml, tmp_path, *words, "task.ood_dataset=[photographs,small_noise]")
    assert list(zip(both.index, both.outliers, strict=True)) == [
        (score, outliers) for score in ("knn", "msp") for outliers in ("photographs", "small_noise")
    ]
    saved = load_file(folder / "artifacts" / "scores.safetensors")
    for (name, row), outliers in zip(both.iterrows(), both.outliers, strict=True):
        scores = saved[f"outliers.{outliers}.{name}"].numpy()
        assert row.outlier_inlier_rate == (scores <= row.threshold).mean()
    assert facts(folder)["conditions"] == ["score", "outliers"]


def test_a_network_without_linear_layer_is_refused_before_training(trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "allconv.py").write_text(
        "from torch import nn\n\ndef make(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    answer = trustml("task=ood", "model=custom", "model.factory=allconv:make")
    assert answer.returncode == 2
    assert answer.stderr.startswith("trustml: error: model: has no linear layer")
    assert "training model" not in answer.stdout


@pytest.mark.parametrize(("passing", "validation", "verdict"), [(0.95, 200, True), (0.5, 200, False), (0.5, 40, None)])
def test_a_threshold_that_does_not_carry_over_is_noticed(
    passing: float, validation: int, verdict: bool | None, make_context: MakeContext
) -> None:
    context = make_context()
    inliers = (torch.arange(400) >= 400 * passing).float()
    result = evaluate(torch.zeros(validation), inliers, torch.ones(9), quantile=0.95)
    check_threshold(context, "msp", result.inliers_passed, len(result.inliers), validation, quantile=0.95)
    (check,) = context.record.checks
    assert check.passed is verdict
    assert f"{in_percent(passing)} of test inliers pass" in check.figure


@pytest.mark.data
def test_a_digit_left_out_of_mnist_is_noticed(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["trainer.epochs=2", "dataset.limit=12000", "task.score=[msp,knn]"]
    answer = trustml("experiment=ood_mnist", *short, f"data_dir={data_dir}")
    assert answer.returncode == 0, answer.stderr
    table = metrics(newest(tmp_path)).set_index("score")
    assert table.outlier_inlier_rate_n.eq(958).all()
    assert table.inlier_rate.between(0.93, 0.97).all()
    assert table.fpr_at_95_tpr["knn"] <= 0.2
    assert table.fpr_at_95_tpr["knn"] < table.fpr_at_95_tpr["msp"]


@pytest.mark.data
@pytest.mark.parametrize(("name", "unseen"), [("ood_cifar_frog", "frog"), ("ood_cifar_cat_cpu", "cat")])
def test_cifar_experiments_run_on_a_few_images(
    name: str, unseen: str, trustml: Cli, tmp_path: Path, data_dir: Path
) -> None:
    answer = trustml(f"experiment={name}", "trainer.epochs=1", "dataset.limit=100", f"data_dir={data_dir}")
    assert answer.returncode == 0, answer.stderr
    table = pandas.read_csv(newest(tmp_path) / "metrics.csv")
    assert list(table.score) == list(composed("task=ood").detector)
    assert table.outliers.eq(unseen).all()
    assert (table.inlier_rate_n + table.outlier_inlier_rate_n).eq(100).all()
