"""Pictures of debiasing: every group, both stages, the rounds and the one that was kept."""

from pathlib import Path

import pytest
import torch

from tests.helpers import points, texts
from trustml_cli.data.table import Attribute
from trustml_cli.fairness.measure import Point, Scored
from trustml_cli.plots.fairness import densities, training_path

SEX = Attribute("sex", ("female", "male"))
LABELS, GROUPS = torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 5], [0, 5], [0, 5], [1, 5]])


def test_densities_show_every_group_before_and_after(tmp_path: Path) -> None:
    before = Scored(torch.tensor([-3.0, -3.0, 3.0, 3.0]), LABELS, GROUPS)
    after = Scored(torch.tensor([-3.0, -3.0, -3.0, 3.0]), LABELS, GROUPS)
    figure = densities(before, after, 0, SEX, "mlp on four people", [0.66, 0.51])
    left, right = figure.axes
    for panel, rate, highest in ((left, "33.3%", 2 / 3), (right, "0.0%", 1)):
        assert len(panel.patches) == 2
        assert f"female: {rate} selected" in texts(figure)
        assert "male: 100.0% selected" in texts(figure)
        female, male = (max(y for _, y in patch.get_path().vertices) for patch in panel.patches)
        assert male == pytest.approx(40)  # all of them in one of 40 bins
        assert female == pytest.approx(40 * highest)
    for words in ("mlp on four people: by sex, 4 test rows", "baseline: accuracy 100.0%, p-rule 33 %",
                  "debiased: accuracy 75.0%, p-rule 0 %", "AUC 0.66", "AUC 0.51",
                  "predicted probability", "density"):  # fmt: skip
        assert words in texts(figure)
    figure.savefig(tmp_path / "densities.png")


def test_a_group_without_rows_is_left_out() -> None:
    scored = Scored(torch.tensor([-3.0, -3.0, 3.0, 3.0]), LABELS, GROUPS)
    figure = densities(scored, scored, 0, Attribute("sex", ("female", "male", "other")), "", [0.5, 0.5])
    assert "other" not in texts(figure)


def test_the_path_shows_every_measured_round() -> None:
    path = [Point(10, 0.9, [40, 50]), Point(20, 0.8, [90, 95]), Point(30, 0.85, [92, 96])]
    figure = training_path(path, ["origin", "sex"], 90, "mlp on census")
    accuracy, rules = figure.axes
    assert points(accuracy, 0) == [(10, 0.9), (20, 0.8), (30, 0.85)]
    assert points(rules, 0) == [(10, 40), (20, 90), (30, 92)]
    assert points(rules, 1) == [(10, 50), (20, 95), (30, 96)]
    assert {height for _, height in points(rules, 2)} == {90}  # what is wanted
    legend = rules.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["origin", "sex", "wanted: 90 %"]
    for words in ("mlp on census", "accuracy", "round of the game", "p-rule"):
        assert words in texts(figure)
