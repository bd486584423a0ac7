"""task=debias from data to rows, on a few hundred made-up people and a logistic regression that fits in no time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.configs import composed
from tests.helpers import CPU, FRESH, NO_CACHE
from trustml_cli.config.instantiate import build
from trustml_cli.data.census import Census
from trustml_cli.data.digits import Digits
from trustml_cli.data.table import Attribute, Rows, Table
from trustml_cli.fairness.metrics import p_rule
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.dense import Logistic
from trustml_cli.models.model import Normalization
from trustml_cli.results.recorder import Recorder
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.debias import Debias
from trustml_cli.tasks.debias_rows import reweighed
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.logistic import SklearnTrainer
from trustml_cli.training.store import ModelStore

PEOPLE = Census(rows=4000, origin_bias=0.6, sex_bias=0.6, test_fraction=0.3, split_seed=0, bins=0, limit=None)
MODEL = Logistic(normalization=Normalization.dataset, **FRESH)
TRAINER = SklearnTrainer(C=1.0, max_iter=100)


def debias(**changes: Any) -> Debias:
    """The task with a short game."""
    short = {
        "rounds": 60, "batch_size": 500, "lr": 0.05, "adversary_hidden": [8], "adversary_lr": 0.01,
        "pretraining_epochs": 10, "measuring_epochs": 60, "p_rule": 85,
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

    def read(self, cache_dir: Path) -> Table:
        table = super().read(cache_dir)
        test = table.test.subset(torch.arange(len(table.test)))
        test.labels = 1 - test.labels
        return replace(table, test=test)


@dataclass(frozen=True, kw_only=True)
class WomenDenied(Census):
    """The same people, but no woman among the test rows has the favourable label."""

    def read(self, cache_dir: Path) -> Table:
        table = super().read(cache_dir)
        test = table.test.subset(torch.arange(len(table.test)))
        test.labels = torch.where(test.sensitive[:, 1] == 0, 0, test.labels)
        return replace(table, test=test)


def fields(people: Census) -> dict[str, Any]:
    return {field: getattr(people, field) for field in people.__dataclass_fields__}


def a_table() -> Table:
    """Rows of two groups, of which nothing else matters."""
    rows = Rows(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]), torch.tensor([[0], [0], [1], [1]]))
    return Table(rows, rows, ("no", "yes"), "", "", (Attribute("sex", ("female", "male")),))


class WithoutPlots(Recorder):
    """Drawing takes longer than all else."""

    def plot(self, name: str, figure: Figure) -> None:
        pass


def recorder(folder: Path, kind: type[Recorder] = WithoutPlots) -> Recorder:
    choices = {"task": "debias", "dataset": "census", "model": "logistic"}
    folder.mkdir()
    record = kind(folder, choices, 0, "", ["trustml"], columns=Debias.columns)
    record.start()
    return record


def run(
    folder: Path, handler: Debias, people: Census = PEOPLE, kind: type[Recorder] = WithoutPlots
) -> tuple[pandas.DataFrame, Recorder]:
    record = recorder(folder, kind)
    handler(Context(0, CPU, ModelStore(folder.parent / "models"), record), people, MODEL, TRAINER)
    return pandas.read_csv(folder / "metrics.csv").set_index("stage"), record


Ran = Callable[[str], tuple[pandas.DataFrame, Recorder]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run of each method, once for all tests."""
    return cache(lambda method: run(tmp_path_factory.mktemp(method) / "run", debias(method=method), kind=Recorder))


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
        every = [rows[f"{guess}_auc_{name}"] for guess in ("score", "network", "boosting")]
        assert list(rows[f"adversary_auc_{name}"]) == [max(values) for values in zip(*every, strict=True)]
        for measure in ("adversary_auc", "demographic_parity_difference", "equalized_odds_difference"):
            column = f"{measure}_{name}"
            assert rows[f"{column}_ci_low"].le(rows[column]).all()
            assert rows[column].le(rows[f"{column}_ci_high"]).all()
    assert rows.accuracy.debiased > 0.72
    assert list(rows.needs_groups_to_decide) == [False, method == "thresholds"]
    fair, useful = record.checks
    assert fair.name == "p-rules are at least 85 % on rows held back"
    assert fair.passed is not False
    assert useful.passed
    plots = {path.stem for path in (record.directory / "plots").iterdir()}
    expected = {f"{kind}_{name}" for kind in ("density", "groups") for name in ("origin", "sex")}
    assert plots == expected | {"curves"} | ({"path"} if method == "adversarial" else set())


def test_the_saved_classifier_is_the_one_that_was_measured(ran: Ran) -> None:
    rows, record = ran("adversarial")
    whole = PEOPLE.load(NO_CACHE)
    assert isinstance(whole, Table)
    table, _ = whole.split_validation(debias().validation_fraction, seed=0)
    network = MODEL.build(input_spec(table))
    network.load_state_dict(load_file(record.directory / "artifacts" / "debiased.safetensors"))
    with torch.no_grad():
        selected = network.eval()(table.test.inputs).argmax(1) == 1
    assert rows.accuracy.debiased == pytest.approx((selected == (table.test.labels == 1)).double().mean().item())
    assert rows.p_rule_sex.debiased == pytest.approx(p_rule(selected, table.test.sensitive[:, 1]))


@pytest.mark.parametrize("method", ["adversarial", "thresholds"])
def test_nothing_is_chosen_by_test_rows(method: str, ran: Ran, tmp_path: Path) -> None:
    flipped = TestLabelsFlipped(**fields(PEOPLE))
    right, _ = ran(method)
    wrong, _ = run(tmp_path / "wrong", debias(method=method), flipped)
    assert wrong.accuracy.debiased == pytest.approx(1 - right.accuracy.debiased)
    assert wrong.p_rule_sex.debiased == right.p_rule_sex.debiased


def test_thresholds_are_chosen_on_training_rows_of_other_folds(ran: Ran, tmp_path: Path) -> None:
    rows, record = run(tmp_path / "run", debias(method="thresholds", folds=2, measuring_epochs=2))
    by_validation, _ = ran("thresholds")
    assert rows.accuracy.baseline == by_validation.accuracy.baseline
    assert rows.lowest_p_rule.debiased > 75
    assert rows.p_rule_sex.debiased != by_validation.p_rule_sex.debiased
    assert "560 rows" in record.checks[0].figure  # all validation rows, none of which has chosen


@pytest.mark.faults
def test_the_same_seed_gives_the_same_rows(tmp_path: Path) -> None:
    short = {"games": 2, "rounds": 5, "pretraining_epochs": 2}
    one, record = run(tmp_path / "one", debias(**short))
    two, _ = run(tmp_path / "two", debias(**short))
    pandas.testing.assert_frame_equal(one, two)
    weights = load_file(record.directory / "artifacts" / "debiased.safetensors")
    first, second = (weights[f"classifiers.{number}.network.1.weight"] for number in range(2))
    assert not torch.equal(first, second)  # two games


def test_a_lambda_of_zero_leaves_groups_as_unequal_as_they_were(tmp_path: Path) -> None:
    rows, record = run(tmp_path / "run", debias(**{"lambda": 0}))
    assert rows.p_rule_sex.debiased < 65
    assert [check.passed for check in record.checks] == [False, True]


def mild() -> Census:
    """People of whom every group has rows of both labels, and is told apart well enough to be selected from."""
    return Census(rows=12_000, origin_bias=0.3, sex_bias=0.3, test_fraction=0.5, split_seed=0, bins=0, limit=None)


@pytest.mark.parametrize(
    ("method", "constraint"),
    [
        ("thresholds", "equalized_odds"),
        pytest.param("thresholds", "equal_opportunity", marks=pytest.mark.faults),
        pytest.param("adversarial", "equalized_odds", marks=pytest.mark.faults),
    ],
)
def test_errors_can_be_made_alike_too(method: str, constraint: str, tmp_path: Path) -> None:
    how = {"method": method, "constraint": constraint, "validation_fraction": 0.5, "measuring_epochs": 2}
    rows, record = run(tmp_path / "run", debias(**how, rounds=100), mild())
    assert list(rows.constraint) == ["none", constraint]
    for name in ("origin", "sex"):
        odds = rows[f"{constraint}_difference_{name}"]
        assert odds.baseline > 0.12
        assert odds.debiased < 0.7 * odds.baseline
        given = rows[f"label_adversary_auc_{name}"]
        assert given.baseline > 0.55
        assert given.debiased < given.baseline - 0.04
    assert record.facts["headline"] == f"largest_{constraint}_difference"
    assert rows[record.facts["headline"]].debiased == pytest.approx(
        max(rows[f"{constraint}_difference_{name}"].debiased for name in ("origin", "sex"))
    )
    assert rows.accuracy.debiased > 0.72
    assert rows.drawn_decisions.baseline == 0
    assert (rows.drawn_decisions.debiased > 0) == (method == "thresholds" and constraint == "equalized_odds")
    fair, useful = record.checks
    assert fair.name == f"{constraint.replace('_', ' ')} differences are at most 0.1 on rows held back"
    assert fair.passed is not False
    assert useful.passed


def test_thresholds_change_decisions_and_not_probabilities(ran: Ran) -> None:
    rows, record = ran("thresholds")
    groups = pandas.read_csv(record.directory / "groups.csv").set_index(["stage", "attribute", "group"])
    assert len(groups) == 2 * 4
    baseline, debiased = groups.loc["baseline"], groups.loc["debiased"]
    assert (baseline.ece == debiased.ece).all()
    assert (baseline.selection_rate != debiased.selection_rate).all()
    for stage, own in (("baseline", baseline), ("debiased", debiased)):
        chosen = own.loc["sex"].selection_rate
        assert 100 * chosen.min() / chosen.max() == pytest.approx(rows.p_rule_sex[stage])
    origin, sex = record.facts["remarks"]
    assert origin.startswith("origin: the share of the favourable label is ")
    ends = [in_percent(debiased.loc["sex"].ece.min()).removesuffix(" %"), in_percent(debiased.loc["sex"].ece.max())]
    assert f"calibration errors are {' to '.join(ends)}" in sex
    assert f"equalized odds difference {rows.equalized_odds_difference_sex.debiased:.3f}" in sex


def test_a_group_without_positives_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        rows, record = run(tmp_path / "run", debias(method="reweighing"), WomenDenied(**fields(PEOPLE)))
    assert rows.equalized_odds_difference_sex.isna().all()
    assert rows.equalized_odds_difference_origin.notna().all()
    assert "sex=female has no favourable label among the test rows" in caplog.text
    assert record.checks[-1].passed is False
    assert "sex=female has no favourable label" in record.checks[-1].figure


def test_reweighed_rows_are_a_data_set_of_their_own() -> None:
    table = PEOPLE.load(NO_CACHE)
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
        ({"lambda_factors": []}, r"^task\.lambda_factors: must be one or more numbers above 0, got \[\]"),
        ({"lambda_factors": [1, 0]}, r"^task\.lambda_factors: must be one or more numbers above 0, got \[1\.0, 0\.0\]"),
        ({"folds": 1}, r"^task\.folds: must be 0 or at least 2, got 1"),
        ({"lambda_factors": [1, 2]}, r"^task\.folds: must be at least 2 to choose one of several lambda_factors"),
        ({"cross_fitting": 1}, r"^task\.cross_fitting: must be 0 or at least 2, got 1"),
        ({"lambda": "much"}, r"^task\.lambda: must be a number, got 'much'"),
        (
            {"method": "reweighing", "constraint": "equalized_odds"},
            r"^task\.constraint: reweighing is for demographic_parity; use task\.method=adversarial or thresholds",
        ),
        ({"method": "magic"}, r"^task\.method: .*adversarial, reweighing, thresholds"),
    ],
)
def test_wrong_keys_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", debias(**changes))
    assert not (tmp_path / "models").exists()


def test_images_are_no_table(tmp_path: Path) -> None:
    digits: Any = Digits(test_fraction=0.25, limit=None)
    with pytest.raises(InputError, match=r"^dataset=census: task=debias needs a table"):
        run(tmp_path / "run", debias(), digits)


def test_a_trainer_that_promises_privacy_is_refused(tmp_path: Path) -> None:
    private: Any = build(composed("trainer=dp_sgd").trainer, "trainer")
    context = Context(0, CPU, ModelStore(tmp_path / "models"), recorder(tmp_path / "run", WithoutPlots))
    with pytest.raises(InputError, match=r"^trainer: debiasing learns from rows without noise"):
        debias()(context, PEOPLE, MODEL, private)
