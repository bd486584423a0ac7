"""Bars of a table's columns."""

import pytest
import torch

from tests.helpers import texts
from trustml_cli.plots.explained_columns import column_bars, row_bars

NAMES = ("age", "job", "hours")
MAPS = {"a": torch.tensor([[1.0, 0.0, -3.0], [1.0, 0.0, -3.0]]), "b": torch.tensor([[0.0, 0.0, 2.0], [0.0, 2.0, 0.0]])}


def test_columns_are_in_order_of_their_shares() -> None:
    (panel,) = column_bars(MAPS, NAMES, "mlp on census").axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["hours", "job", "age"]
    widths = [[bar.get_width() for bar in bars] for bars in panel.containers]
    assert widths == [pytest.approx([0.75, 0.0, 0.25]), pytest.approx([0.5, 0.5, 0.0])]
    assert "mlp on census, 2 rows" in texts(panel.figure)


def test_a_row_has_its_contributions_with_their_sign_beside_its_values() -> None:
    figure = row_bars(MAPS["a"], NAMES, [["33", "care", "40"]], ["high (90 %)"], "a: mlp on census")
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["hours = 40", "age = 33", "job = care"]
    assert [bar.get_width() for bar in panel.containers[0]] == [-3, 1, 0]
    assert len({bar.get_facecolor() for bar in panel.containers[0].patches[:2]}) == 2
    assert "high (90 %)" in texts(figure)
