"""Which explainers run, what they explain, and the rows they make."""

from math import isnan
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.configs import choice, composed
from tests.helpers import Cli, MakeContext, facts, measured, metrics, newest
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.defence import Defence
from trustml_cli.explainers.explainer import Explainer
from trustml_cli.explainers.measure import Explained
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.explain import Explain, columns_of, judged


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    return make_context(seed=4, task="explain")


def parts(*words: str) -> tuple[Explain, dict[str, Explainer], Model]:
    config = composed("task=explain", *words)
    return tuple(build(config[group], group) for group in ("task", "explainer", "model"))  # type: ignore[return-value]


def test_those_that_cannot_serve_the_model_stay_out_unless_they_are_named(tiny_data: Dataset, context: Context) -> None:
    task, family, logistic = parts("model=logistic")
    others = [name for name in family if name not in ("grad_cam", "kernel_shap")]  # no convolutions, and no table
    assert list(task.able(family, logistic, tiny_data, context, Defence())) == others
    task, family, mlp = parts("model=mlp")
    assert list(task.able(family, mlp, tiny_data, context, Defence())) == [name for name in others if name != "linear"]
    named, _, _ = parts("task.explainer=[saliency,linear]")
    assert list(named.able(family, logistic, tiny_data, context, Defence())) == ["saliency", "linear"]
    with pytest.raises(InputError, match=r"^task\.explainer: linear needs a linear model"):
        named.able(family, mlp, tiny_data, context, Defence())


def test_images_are_drawn_by_the_seed_and_the_target_by_name(tiny_data: Dataset, context: Context) -> None:
    task, _, _ = parts("task.images=10", "task.target=bright")
    order, target = task.draw(tiny_data, context)
    assert len(order.unique()) == 10
    assert target is not None
    assert target.tolist() == [1] * 10
    assert torch.equal(order, task.draw(tiny_data, context)[0])
    other = Context(5, context.hardware, context.store, context.record)
    assert not torch.equal(order, task.draw(tiny_data, other)[0])
    assert parts("task.images=10")[0].draw(tiny_data, context)[1] is None
    assert parts("task.images=33")[0].draw(tiny_data, context)[0].tolist() == list(range(32))
    with pytest.raises(InputError, match=r"task\.target: no class 'cat'"):
        parts("task.images=3", "task.target=cat")[0].draw(tiny_data, context)


def test_a_row_by_hand() -> None:
    maps = torch.zeros(2, 1, 2, 2)
    deletion, insertion = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.5, 0.5]]), torch.tensor([[0.0, 1.0, 1.0]] * 2)
    chance = Explained(maps, torch.tensor([[1.0, 1.0, 0.0], [0.5, 0.5, 0.5]]), insertion, None, 0.1)
    row = judged(Explained(maps, deletion, insertion, torch.tensor([[1.0, 3.0], [0.0, 6.0]]), 0.1), chance)
    assert row["deletion_gain"] == 0.125  # 0.75 and 0.5 in a random order, 0.5 and 0.5 in its own
    assert row["deletion_gain_n"] == 2
    assert row["completeness_gap"] == 2.5  # of 2 and 3
    assert row["max_completeness_gap"] == 6
    assert (row["deletion_auc"], row["insertion_auc"]) == (0.5, 0.75)
    assert row["deletion_auc_ci_low"] == row["deletion_auc_ci_high"] == 0.5
    assert row["completeness_gap_n"] == 2
    product = judged(Explained(maps, deletion, insertion, None, 0.1), chance)
    assert isnan(product["completeness_gap"])
    assert (product["completeness_gap_n"], product["deletion_auc_n"]) == (0, 2)


def test_columns_of_a_table_are_explained(trustml: Cli, tmp_path: Path) -> None:
    words = ["dataset=census", "dataset.rows=400", "model=logistic", "task.images=20", "task.baselines=2"]
    answer = trustml("task=explain", "task.explainer=[linear,input_x_gradient,gradient_shap]", *words)
    assert answer.returncode == 0, answer.stderr
    folder = newest(tmp_path)
    table = metrics(folder).set_index("explainer")
    assert list(table.index) == ["linear", "input_x_gradient", "gradient_shap"]  # contributions alone
    assert table.max_completeness_gap["linear"] < 1e-5
    assert (table.baselines == 2).all()
    (check,) = facts(folder)["checks"]
    assert "over 2 random baselines for each example" in check["figure"]
    assert table.rank_correlation_input_x_gradient["linear"] == pytest.approx(1)  # one linear model, one explanation
    assert table.insertion_auc["linear"] > table.deletion_auc["linear"] + 0.05
    saved = load_file(folder / "artifacts" / "attributions.safetensors")
    data = build(choice("dataset", "census", rows=400), "dataset").load(tmp_path)
    columns = columns_of(data)
    assert columns.names == ("age", "education_years", "hours_per_week", "job", "district")
    assert saved["linear"].shape == (20, 5)
    (contributed,) = saved["linear"].sum(1, keepdim=True).T
    assert contributed.std() > 0.1
    plots = {path.stem for path in (folder / "plots").iterdir()}
    assert plots == {"columns", "rows", "deletion_insertion", "rank_correlation"}


@pytest.mark.data
def test_weights_are_complete_on_mnist_and_saliency_is_not(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    table = measured(trustml, tmp_path, data_dir, "experiment=explain_mnist_logistic").set_index("explainer")
    assert table.max_completeness_gap.linear <= 1e-5
    assert table.completeness_gap.saliency > 1
    assert table.insertion_auc.linear > table.insertion_auc.saliency_x_input
    assert table.deletion_auc.linear < table.deletion_auc.saliency_x_input
    assert (table.completeness_gap_n[~table.index.str.endswith("_x_input")] == 100).all()
