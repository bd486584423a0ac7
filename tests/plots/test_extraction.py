"""The pictures of a theft: every method and budget, and weights that can be compared."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import band, points, texts
from trustml_cli.metrics.intervals import proportion, wilson_interval
from trustml_cli.plots.extraction import agreement_curve, weights_side_by_side


def rows(round_digits: int | None) -> list[dict[str, Any]]:
    counts = {"linear_logits": [60, 100], "distill": [50, 90]}
    return [
        {"method": name, "queries": queries, "round_digits": round_digits, **proportion("agreement", right, 100)}
        for name, both in counts.items()
        for queries, right in zip((16, 65), both, strict=True)
    ]


def test_agreement_has_a_line_and_a_band_for_each_method() -> None:
    figure = agreement_curve(rows(2), "logistic on digits")
    panel = figure.axes[0]
    assert [points(panel, 0), points(panel, 1)] == [[(16, 0.6), (65, 1.0)], [(16, 0.5), (65, 0.9)]]
    for number, both in enumerate(((60, 100), (50, 90))):
        assert band(panel, number) == [pytest.approx(wilson_interval(right, 100)) for right in both]
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["linear logits", "distill"]
    assert panel.get_xscale() == "log"
    assert panel.get_xticks().tolist() == [16, 65]
    for words in (
        "queries",
        "agreement with the victim",
        "logistic on digits",
        "100 test images",
        "rounded to 2 digits",
    ):
        assert words in texts(figure)
    assert "rounded" not in texts(agreement_curve(rows(None), "logistic on digits"))


def test_weights_are_shown_without_what_classes_share_and_by_row_s_own_scale() -> None:
    victim = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0], [-1.0, -2.0, -3.0, -4.0, 9.0]])
    stolen = 100 * victim + 5.0
    figure = weights_side_by_side({"victim": victim, "linear_labels": stolen}, (1, 2, 2), ["cat", "dog"], "x on y")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert [image.shape for image in shown] == [(2, 2)] * 4
    assert shown[0].tolist() == [[1, 2], [3, 4]]
    for axes, unit in zip(figure.axes, (1, 1, 100, 100), strict=True):
        low, high = axes.images[0].get_clim()
        assert low == -high
        assert high == pytest.approx(4 * unit, rel=0.02)
    for words in ("cat", "dog", "victim", "linear\nlabels", "x on y", "own scale"):
        assert words in texts(figure)
