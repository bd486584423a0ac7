"""Cells, worked out by hand."""

from math import nan

import pandas
import pytest

from trustml_cli.results.report.table import readable, shown

FRAME = pandas.DataFrame(
    {
        "run": ["1", "2", "1", "2"],
        "epsilon": [0.0, 0.0, 0.1, 0.1],
        "robust_accuracy": [0.91234, 0.5, 0.25, 0.25],
        "robust_accuracy_ci_low": [0.9, 0.4, 0.2, nan],
        "robust_accuracy_ci_high": [0.92, 0.6, 0.3, nan],
        "robust_accuracy_n": [1000, 1000, 1000, nan],
        "test_loss": [3.0, 1.0, nan, 2.0],
        "agreement": [0.1, 0.2, 0.3, 0.4],
        "ece": [nan] * 4,
    }
)


def test_intervals_and_counts_are_in_the_cells_of_their_values() -> None:
    table = readable(FRAME, ["run", "epsilon"])
    assert table.columns == ["run", "epsilon", "robust_accuracy", "test_loss", "agreement"]
    first, last = table.rows[0][2], table.rows[3][2]
    assert (first.text, first.note, first.sort) == ("91.2 %", "90.0 to 92.0 %, n = 1,000", 0.91234)
    assert first.bar == pytest.approx((91.234, 90, 92))
    assert (last.text, last.note, last.bar) == ("25.0 %", "", None)
    assert table.rows[2][3].text == "–"
    assert table.rows[2][3].sort < 1


def test_the_best_of_equal_conditions_is_marked_where_one_is_better() -> None:
    better = {"robust_accuracy": "higher", "test_loss": "lower"}
    rows = readable(FRAME, ["run", "epsilon"], better).rows
    marked = [[cell.best for cell in row] for row in rows]
    # the accuracies at 0.1 are equal, only one loss was measured there, and of agreement nothing is said
    assert marked == [[False, False, True, False, False], [False, False, False, True, False], [False] * 5, [False] * 5]


def test_nothing_is_the_best_where_its_interval_overlaps_another() -> None:
    better = {"robust_accuracy": "higher"}
    for low, marked in ((0.61, True), (0.59, False)):
        frame = FRAME.assign(robust_accuracy_ci_low=[low, 0.4, 0.2, nan])
        assert readable(frame, ["run", "epsilon"], better).rows[0][2].best is marked


def test_every_row_counts_where_there_are_no_conditions() -> None:
    frame = FRAME[["run", "robust_accuracy"]]
    for way, best in (
        ("higher", [True, False, False, False]), ("lower", [False, False, True, True]), ("sideways", [False] * 4),
    ):  # fmt: skip
        assert [row[1].best for row in readable(frame, ["run"], {"robust_accuracy": way}).rows] == best


def test_no_time_is_the_best() -> None:
    frame = FRAME[["run", "robust_accuracy"]].rename(columns={"robust_accuracy": "seconds"})
    assert not any(cell.best for row in readable(frame, ["run"], {"seconds": "lower"}).rows for cell in row)


def test_nothing_is_marked_where_nothing_is_said() -> None:
    assert not any(cell.best for row in readable(FRAME, ["run", "epsilon"]).rows for cell in row)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"), (12345.678, "12,346"), (12345678.9, "1.235e+07"), (10000, "10,000"),
        (3.0, "3"), (nan, "–"), (None, "–"), (True, "True"), ("linf", "linf"), (1e-7, "1e-07"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_table_of_any_length_is_shown_in_part() -> None:
    table = readable(pandas.DataFrame({"epsilon": range(10_003), "f": 0.5}), ["epsilon"])
    assert (len(table.rows), table.left_out) == (10_000, 3)
    assert readable(pandas.DataFrame({"f": [0.5]}), []).left_out == 0


def test_values_of_any_kind_are_shown() -> None:
    frame = pandas.DataFrame({"a": ["x", 10**400, True], "f": ["y", 0.5, None], "f_n": [float("inf"), "z", 3]})
    rows = readable(frame.astype(object), ["a", "gone"]).rows
    assert [[cell.text for cell in row] for row in rows] == [["x", "y"], ["1" + "0" * 400, "0.5"], ["True", "–"]]
