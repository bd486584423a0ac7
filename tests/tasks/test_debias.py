"""task=debias from data to rows, on a few hundred made-up people and a logistic regression that fits in no time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.configs import composed
from tests.helpers import CPU
from trustml_cli.build import build
from trustml_cli.data.census import Census
from trustml_cli.data.dataset import Dataset
from trustml_cli.data.digits import Digits
from trustml_cli.data.table import Table
from trustml_cli.errors import InputError
from trustml_cli.fairness.metrics import p_rule
from trustml_cli.models.dense import Logistic
from trustml_cli.models.model import Normalization
from trustml_cli.record import Recorder
from trustml_cli.store import ModelStore
from trustml_cli.tasks.context import Context, describe
from trustml_cli.tasks.debias import Debias, check_groups, reweighed
from trustml_cli.training.logistic import SklearnTrainer

PEOPLE = Census(rows=4000, origin_bias=0.6, sex_bias=0.6, test_fraction=0.3, split_seed=0, steps=0, limit=None)
MODEL = Logistic(normalization=Normalization.dataset, checkpoint=None)
TRAINER = SklearnTrainer(inverse_regularization=1.0, max_iter=100)


def debias(**changes: Any) -> Debias:
    """The task with a short game."""
    short = {
        "rounds": 60, "batch_size": 500, "lr": 0.05, "adversary_hidden": [8], "adversary_lr": 0.01,
        "pretraining_epochs": 10, "p_rule": 85,
    }  # fmt: skip
    node = composed("task=debias").task
    for key, value in {**short, **changes}.items():
        OmegaConf.update(node, key, value)
    handler: Debias = build(node, "task")
    return handler


@dataclass(frozen=True, kw_only=True)
class TestLabelsFlipped(Census):
    """The same people, but every test label is the other one."""

    __test__ = False

    def read(self) -> Table:
        table = super().read()
        test = table.test.subset(torch.arange(len(table.test)))
        test.labels = 1 - test.labels
        return replace(table, test=test)


def run(folder: Path, handler: Debias, people: Census = PEOPLE) -> tuple[pandas.DataFrame, Recorder]:
    choices = {"task": "debias", "dataset": "census", "model": "logistic"}
    record = Recorder(folder, choices, 0, "", ["trustml"])
    folder.mkdir()
    record.start()
    handler(Context(0, CPU, ModelStore(folder.parent / "models"), record), people, MODEL, TRAINER)
    return pandas.read_csv(folder / "metrics.csv").set_index("stage"), record


Ran = Callable[[str], tuple[pandas.DataFrame, Recorder]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run of each method, once for all tests."""
    return cache(lambda method: run(tmp_path_factory.mktemp(method) / "run", debias(method=method)))


@pytest.mark.parametrize("method", ["adversarial", "reweighing", "thresholds"])
def test_groups_are_treated_more_alike_afterwards(method: str, ran: Ran) -> None:
    rows, record = ran(method)
    assert list(rows.index) == ["baseline", "debiased"]
    for name in ("origin", "sex"):
        rule = rows[f"p_rule_{name}"]
        assert rule.baseline < 65
        assert rule.debiased > 75
        assert rows[f"p_rule_{name}_ci_low"].debiased < rule.debiased < rows[f"p_rule_{name}_ci_high"].debiased
        assert rows[f"demographic_parity_difference_{name}"].debiased < 0.1
        assert rows[f"adversary_auc_{name}"].baseline > 0.55
        assert rows[f"adversary_auc_{name}"].debiased < rows[f"adversary_auc_{name}"].baseline
    assert rows.accuracy.debiased > 0.72
    assert list(rows.needs_groups_to_decide) == [False, method == "thresholds"]
    assert len(record.checks) == 1
    plots = {path.stem for path in (record.directory / "plots").iterdir()}
    assert plots == {"density_origin", "density_sex", *(["path"] if method == "adversarial" else [])}


def test_the_saved_classifier_is_the_one_that_was_measured(ran: Ran) -> None:
    rows, record = ran("adversarial")
    table = PEOPLE.load()
    assert isinstance(table, Table)
    network = MODEL.build(describe(table))
    network.load_state_dict(load_file(record.directory / "artifacts" / "debiased.safetensors"))
    with torch.no_grad():
        selected = network.eval()(table.test.inputs).argmax(1) == 1
    assert rows.accuracy.debiased == pytest.approx((selected == (table.test.labels == 1)).double().mean().item())
    assert rows.p_rule_sex.debiased == pytest.approx(p_rule(selected, table.test.sensitive[:, 1]))


@pytest.mark.parametrize("method", ["adversarial", "thresholds"])
def test_nothing_is_chosen_by_test_rows(method: str, ran: Ran, tmp_path: Path) -> None:
    flipped = TestLabelsFlipped(**{field: getattr(PEOPLE, field) for field in PEOPLE.__dataclass_fields__})
    right, _ = ran(method)
    wrong, _ = run(tmp_path / "wrong", debias(method=method), flipped)
    assert wrong.accuracy.debiased == pytest.approx(1 - right.accuracy.debiased)
    assert wrong.p_rule_sex.debiased == right.p_rule_sex.debiased


def test_the_same_seed_gives_the_same_rows(tmp_path: Path) -> None:
    one, _ = run(tmp_path / "one", debias(rounds=5, pretraining_epochs=2))
    two, _ = run(tmp_path / "two", debias(rounds=5, pretraining_epochs=2))
    pandas.testing.assert_frame_equal(one, two)


def test_a_lambda_of_zero_leaves_groups_as_unequal_as_they_were(tmp_path: Path) -> None:
    rows, record = run(tmp_path / "run", debias(**{"lambda": 0}))
    assert rows.p_rule_sex.debiased < 65
    assert [check.passed for check in record.checks] == [False]


def test_reweighed_rows_are_a_data_set_of_their_own() -> None:
    table = PEOPLE.load()
    assert isinstance(table, Table)
    drawn = reweighed(table, seed=0)
    assert drawn.fingerprint != table.fingerprint
    assert len(drawn.train) == len(table.train)
    for before, after in zip(table.train.sensitive.T, drawn.train.sensitive.T, strict=True):
        assert p_rule(table.train.labels == 1, before) < 60
        assert p_rule(drawn.train.labels == 1, after) > 95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda": [1, 2, 3]}, r"^task\.lambda: must be one number or 2 \(origin, sex\), got \[1"),
        ({"lambda": -1}, r"^task\.lambda: must be one number of at least 0"),
        ({"lambda": "much"}, r"^task\.lambda: must be a number, got 'much'"),
        ({"method": "magic"}, r"^task\.method: .*adversarial, reweighing, thresholds"),
    ],
)
def test_wrong_keys_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", debias(**changes))
    assert not (tmp_path / "models").exists()


def test_images_are_no_table(tmp_path: Path) -> None:
    digits: Any = Digits(test_fraction=0.25, limit=None, cache_dir=tmp_path)
    with pytest.raises(InputError, match=r"^dataset=census: task=debias needs a table"):
        run(tmp_path / "run", debias(), digits)


def test_a_part_with_one_group_alone_cannot_be_compared() -> None:
    table = PEOPLE.load()
    assert isinstance(table, Dataset)
    assert isinstance(table, Table)
    women = table.train.subset((table.train.sensitive[:, 1] == 0).nonzero()[:, 0])
    with pytest.raises(InputError, match=r"^dataset: \d+ rows hold 'female' alone .*'sex'; take more rows"):
        check_groups(table, table.test, women)
