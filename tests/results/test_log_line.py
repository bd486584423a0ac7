"""The log line of a row: the condition, the headline with its interval, then the values that are logged."""

from typing import Any

import pytest

from trustml_cli.metrics.columns import conditions, declared, headline, higher, logged, lower
from trustml_cli.results.log_line import FEW, headline_table, log_line

COLUMNS = (*conditions("epsilon"), *logged(lower("rate", "loss")), *headline(higher("accuracy")), *higher("quiet"))
ACCURACY = {"accuracy": 0.61559, "accuracy_ci_low": 0.5698, "accuracy_ci_high": 0.65931, "accuracy_n": 1450}


@pytest.mark.parametrize(
    ("condition", "values", "line"),
    [
        (
            {"epsilon": 0.1},
            {"rate": 0.25, **ACCURACY, "quiet": 1},
            "epsilon 0.1: accuracy 61.6 % (57.0 to 65.9 %, n = 1,450), rate 25.0 %",
        ),
        ({}, {"accuracy": 0.5, "loss": 1234567.8}, "accuracy 50.0 %, loss 1,234,568"),
        ({"epsilon": 2}, {"accuracy": float("nan"), "rate": 0.5}, "epsilon 2: rate 50.0 %"),
        ({"epsilon": 2}, {"accuracy": None, "quiet": 0.5}, ""),
    ],
)
def test_the_log_line_of_a_row(condition: dict[str, Any], values: dict[str, Any], line: str) -> None:
    assert log_line(condition, values, declared(COLUMNS, values)) == line


def test_the_headline_of_several_rows_is_a_table_of_what_differs() -> None:
    rows = [{"attack": "pgd", "epsilon": epsilon, **ACCURACY, "accuracy": 1 - epsilon} for epsilon in (0.1, 0.25)]
    assert headline_table(rows, ["attack", "epsilon"], "accuracy") == [
        "epsilon  accuracy  ci_low  ci_high      n",
        "    0.1    90.0 %  57.0 %   65.9 %  1,450",
        "   0.25    75.0 %  57.0 %   65.9 %  1,450",
    ]
    plain = [{"set": name, "accuracy": value} for name, value in [("a\x1b", None), ("b", 1)]]
    assert headline_table(plain, ["set"], "accuracy") == ["  set  accuracy", r"a\x1b          ", "    b     100 %"]
    many = headline_table([{"epsilon": number, "accuracy": 1} for number in range(FEW + 2)], ["epsilon"], "accuracy")
    assert len(many) == FEW + 2
    assert many[-1] == "… 2 more rows in metrics.csv"
    assert headline_table(rows[:1], ["epsilon"], "accuracy") == headline_table(rows, ["epsilon"], None) == []
