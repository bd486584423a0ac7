"""The strength of the adversary: chosen among several by rows that were not played on."""

from collections.abc import Mapping
from pathlib import Path

import pandas
import pytest
import torch

from tests.tasks.test_debias import PEOPLE, TestLabelsFlipped, debias, fields, run
from trustml_cli.fairness.constraint import Constraint
from trustml_cli.fairness.measure import Scored
from trustml_cli.tasks.debias_games import best

SHORT = {"rounds": 40, "pretraining_epochs": 5, "measuring_epochs": 2, "folds": 2, "cross_fitting": 2}


def scored(right: int, selected: tuple[int, int]) -> Scored:
    """Two groups of 100, of which so many are selected; of these, so many rightly."""
    decisions = torch.cat([torch.arange(100) < count for count in selected])
    labels = decisions.long()
    labels[right:] = 1 - labels[right:]
    return Scored(torch.where(decisions, 1.0, -1.0).double(), labels, (torch.arange(200) // 100)[:, None])


@pytest.mark.parametrize(
    ("pooled", "wanted", "factor"),
    [
        ({1.0: scored(190, (50, 30)), 2.0: scored(180, (50, 46)), 4.0: scored(170, (50, 49))}, 90, 2.0),
        ({1.0: scored(190, (50, 30)), 2.0: scored(180, (50, 40)), 4.0: scored(170, (50, 35))}, 90, 2.0),
        ({1.0: scored(190, (50, 30)), 2.0: scored(180, (0, 0)), 4.0: scored(170, (50, 20))}, 90, 1.0),
    ],
)
def test_the_most_accurate_is_chosen_of_those_that_reach_the_goal_else_the_nearest(
    pooled: Mapping[float, Scored], wanted: float, factor: float
) -> None:
    assert best(pooled, Constraint.demographic_parity, wanted) == factor


def test_of_differences_the_goal_is_an_upper_bound() -> None:
    pooled = {1.0: scored(200, (50, 30)), 2.0: scored(150, (50, 50))}
    values = {factor: each.fairness("equal_opportunity_difference")[0] for factor, each in pooled.items()}
    assert values == {1.0: 0.0, 2.0: 0.5}
    assert best(pooled, Constraint.equal_opportunity, 0.1) == 1.0


@pytest.mark.faults
def test_cross_validation_chooses_a_lambda_that_debiases_without_test_rows(tmp_path: Path) -> None:
    how = {**SHORT, "lambda": 10, "lambda_factors": [0.001, 1]}
    rows, record = run(tmp_path / "run", debias(**how))
    table = pandas.read_csv(record.directory / "cross_validation.csv")
    assert table.chosen.tolist() == [False, True]
    assert table.lambda_sex.tolist() == pytest.approx([0.01, 10])
    assert table.p_rule_sex[0] < 60 < table.p_rule_sex[1]
    assert table.n.tolist() == [2240, 2240]  # all training rows but the validation rows
    assert rows.p_rule_sex.debiased > 65
    assert "lambda: 10, 10 (1 times task.lambda) was chosen" in record.facts["remarks"][0]
    run(tmp_path / "flipped", debias(**how), TestLabelsFlipped(**fields(PEOPLE)))
    pandas.testing.assert_frame_equal(table, pandas.read_csv(tmp_path / "flipped" / "cross_validation.csv"))
