"""The log line of a row: the condition, the headline with its interval, then the values that are logged."""

from typing import Any

import pytest

from trustml_cli.metrics.columns import conditions, declared, headline, higher, logged, lower
from trustml_cli.results.log_line import log_line

COLUMNS = (*conditions("epsilon"), *logged(lower("rate")), *headline(higher("accuracy")), *higher("quiet"))
ACCURACY = {"accuracy": 0.61559, "accuracy_ci_low": 0.5698, "accuracy_ci_high": 0.65931, "accuracy_n": 1450}


@pytest.mark.parametrize(
    ("condition", "values", "line"),
    [
        (
            {"epsilon": 0.1},
            {"rate": 0.25, **ACCURACY, "quiet": 1},
            "epsilon 0.1: accuracy 0.6156 (0.5698 to 0.6593, n = 1,450), rate 0.25",
        ),
        ({}, {"accuracy": 47.7123}, "accuracy 47.71"),
        ({"epsilon": 2}, {"accuracy": float("nan"), "rate": 0.5}, "epsilon 2: rate 0.5"),
        ({"epsilon": 2}, {"accuracy": None, "quiet": 0.5}, ""),
    ],
)
def test_the_log_line_of_a_row(condition: dict[str, Any], values: dict[str, Any], line: str) -> None:
    assert log_line(condition, values, declared(COLUMNS, values)) == line
