"""Which rows debiasing is chosen by and judged by, and when they are too few to judge."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers import CPU, NO_CACHE
from tests.tasks.test_debias import PEOPLE, a_table, recorder
from trustml_cli.data.dataset import Dataset
from trustml_cli.data.table import Rows, Table
from trustml_cli.fairness.constraint import Constraint
from trustml_cli.fairness.measure import Scored
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.debias_rows import check_groups, choosing_rows
from trustml_cli.tasks.debiasing import Stage, by_thresholds, check_fairness
from trustml_cli.training.store import ModelStore


def stage(selected: Tensor, labels: Tensor, group: Tensor) -> Stage:
    scored = Scored(torch.where(selected, 1.0, -1.0), labels, group[:, None])
    return Stage(scored, scored, scored, scored)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ((500, 250, 500, 245), True),  # 98 percent
        ((500, 250, 500, 100), False),  # 40 percent
        ((40, 20, 40, 17), None),  # 85 percent, which 80 rows do not tell from 90
        ((15, 7, 500, 250), None),  # hardly anybody in one group
    ],
)
def test_a_p_rule_is_judged_where_there_are_rows_enough(
    rows: tuple[int, int, int, int], verdict: bool | None, tmp_path: Path
) -> None:
    first, first_selected, second, second_selected = rows
    group = torch.arange(2).repeat_interleave(torch.tensor([first, second]))
    selected = torch.cat([torch.arange(first) < first_selected, torch.arange(second) < second_selected])
    labels = torch.arange(len(group)) % 2
    table, record = a_table(), recorder(tmp_path / "run")
    context = Context(0, CPU, ModelStore(tmp_path), record)
    check_fairness(context, table, stage(selected, labels, group), Constraint.demographic_parity, 90)
    (check,) = record.checks
    assert check.passed is verdict
    assert f"{len(group):,} rows" in check.figure


def test_thresholds_are_judged_by_rows_that_did_not_choose_them() -> None:
    # scores are noise: any rate at the rows that choose is right by luck, and equal there by construction
    random = torch.Generator().manual_seed(0)
    sensitive = (torch.arange(240) % 2)[:, None]
    labels = (torch.rand(240, generator=random) < 0.5).long()
    validation = Rows(torch.zeros(240, 1), labels, sensitive)
    chosen, judging = choosing_rows(replace(a_table(), train=validation), validation, Constraint.demographic_parity, 0)
    assert chosen is not None
    assert torch.equal(torch.cat([chosen, judging]).sort().values, torch.arange(240))
    scored = Scored(torch.randn(240, generator=random).double(), labels, sensitive)
    before = Stage(scored, scored, scored, scored)
    after = by_thresholds(before, Constraint.demographic_parity, scored.subset(chosen), judging, seed=0)
    assert after.validation.subset(chosen).p_rules[0] > 95
    assert after.judging.p_rules == after.validation.subset(judging).p_rules
    assert after.judging.p_rules[0] < after.validation.subset(chosen).p_rules[0]


def test_thresholds_need_rows_of_every_group_to_choose_by(caplog: pytest.LogCaptureFixture) -> None:
    sensitive = torch.tensor([[0]] * 30 + [[1]] * 10)
    rows = Rows(torch.zeros(40, 1), (torch.arange(40) < 33).long(), sensitive)
    table = replace(a_table(), train=rows, test=rows)
    with pytest.raises(InputError, match=r"^task\.method: thresholds has no rows of each label of female to choose"):
        choosing_rows(table, rows, Constraint.equalized_odds, 0)
    with caplog.at_level("WARNING"):
        choosing_rows(table, rows, Constraint.demographic_parity, 0)
    assert "the thresholds of male are chosen by 5 rows only" in caplog.text
    women = rows.subset(torch.arange(30))
    with pytest.raises(InputError, match=r"^task\.method: thresholds has no rows of male to choose by among 15"):
        choosing_rows(table, women, Constraint.demographic_parity, 0)
    assert choosing_rows(table, women, Constraint.demographic_parity, 2)[0] is None  # training rows have men


def test_a_part_with_one_group_alone_cannot_be_compared() -> None:
    table = PEOPLE.load(NO_CACHE)
    assert isinstance(table, Dataset)
    assert isinstance(table, Table)
    women = table.train.subset((table.train.sensitive[:, 1] == 0).nonzero()[:, 0])
    with pytest.raises(InputError, match=r"^dataset: \d+ rows hold 'female' alone .*'sex'; use more rows"):
        check_groups(table, Constraint.demographic_parity, table.test, women)
