"""Pictures of debiasing: every group, both stages, the rounds and the one that was kept."""

from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes

from tests.helpers import points, texts
from trustml_cli.data.table import Attribute
from trustml_cli.fairness.by_group import group_columns
from trustml_cli.fairness.measure import Point, Scored
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.fairness import densities, groups_of, training_path

SEX = Attribute("sex", ("female", "male"))
LABELS, GROUPS = torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 5], [0, 5], [0, 5], [1, 5]])


def test_densities_show_every_group_before_and_after(tmp_path: Path) -> None:
    before = Scored(torch.tensor([-3.0, -3.0, 3.0, 3.0]), LABELS, GROUPS)
    after = Scored(torch.tensor([-3.0, -3.0, -3.0, 3.0]), LABELS, GROUPS)
    figure = densities(before, after, 0, SEX, "mlp on four people", [0.66, 0.51])
    left, right = figure.axes
    for panel, rate, highest in ((left, "33.3 %", 2 / 3), (right, "0 %", 1)):
        assert len(panel.patches) == 2
        assert f"female: {rate} selected" in texts(figure)
        assert "male: 100 % selected" in texts(figure)
        female, male = (max(y for _, y in patch.get_path().vertices) for patch in panel.patches)
        assert male == pytest.approx(40)  # all of them in one of 40 bins
        assert female == pytest.approx(40 * highest)
    for words in ("mlp on four people: by sex, 4 test rows", "baseline: accuracy 100 %", "p-rule 33 %",
                  "debiased: accuracy 75.0 %", "p-rule 0 %", "AUC 0.66", "AUC 0.51",
                  "predicted probability", "density"):  # fmt: skip
        assert words in texts(figure)
    figure.savefig(tmp_path / "densities.png")


def test_titles_have_the_metric_of_the_goal() -> None:
    # of the two negative rows, both women, one is selected; of the positive ones, the woman and the man
    scored = Scored(torch.tensor([-3.0, 3.0, 3.0, 3.0]), torch.tensor([0, 0, 1, 1]), GROUPS)
    figure = densities(scored, scored, 0, SEX, "", [0.5, 0.5], "equal_opportunity_difference")
    assert "equal opportunity difference 0.000" in texts(figure)


def test_a_group_without_rows_is_left_out() -> None:
    scored = Scored(torch.tensor([-3.0, -3.0, 3.0, 3.0]), LABELS, GROUPS)
    figure = densities(scored, scored, 0, Attribute("sex", ("female", "male", "other")), "", [0.5, 0.5])
    assert "other" not in texts(figure)


def test_the_path_shows_every_measured_round() -> None:
    path = [Point(10, 0.9, [40, 50]), Point(20, 0.8, [90, 95]), Point(30, 0.85, [92, 96])]
    figure = training_path(path, ["origin", "sex"], "p_rule", 90, "mlp on census")
    accuracy, rules = figure.axes
    assert points(accuracy, 0) == [(10, 0.9), (20, 0.8), (30, 0.85)]
    assert (accuracy.yaxis.get_major_formatter()(0.825), rules.yaxis.get_major_formatter()(90)) == ("82.5 %", "90 %")
    assert points(rules, 0) == [(10, 40), (20, 90), (30, 92)]
    assert points(rules, 1) == [(10, 50), (20, 95), (30, 96)]
    assert {height for _, height in points(rules, 2)} == {90}  # what is wanted
    legend = rules.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["origin", "sex", "wanted: 90 %"]
    for words in ("mlp on census", "accuracy", "round of the game", "p-rule"):
        assert words in texts(figure)
    odds = training_path([Point(10, 0.9, [0.4]), Point(20, 0.8, [0.1])], ["sex"], "equalized_odds_difference", 0.2, "")
    assert "equalized odds difference" in texts(odds)
    assert "wanted: at most 0.2" in texts(odds)


def marked(panel: Axes) -> list[list[tuple[float, float]]]:
    """The points of each series, without the ends of their intervals."""
    return [points(panel, number) for number, line in enumerate(panel.lines) if line.get_marker() in ("o", "s")]


def test_rates_of_each_group_stand_beside_each_other_before_and_after(tmp_path: Path) -> None:
    before = Scored(torch.tensor([-3.0, 3.0, 3.0, 3.0]), LABELS, torch.tensor([[0], [0], [1], [1]]))
    after = Scored(torch.tensor([-3.0, -3.0, -3.0, 3.0]), LABELS, before.sensitive)
    stages = {"baseline": (before, before.probability), "debiased": (after, after.probability)}
    rows = [
        {"stage": stage, "attribute": "sex", "group": name}
        | group_columns(scored, scored.probability, scored.sensitive[:, 0] == number, 0)
        for stage, (scored, _) in stages.items()
        for number, name in enumerate(SEX.groups)
    ]
    figure = groups_of(stages, rows, 0, SEX, "mlp on four people")
    selection = next(panel for panel in figure.axes if panel.get_title() == "selection rate")
    assert marked(selection) == [[(0.5, -0.14), (1.0, 0.86)], [(0.0, 0.14), (0.5, 1 + 0.14)]]
    left, right = figure.axes[-2:]
    # both women are in the outer bins before; afterwards both in the first, and the men in either
    sure = torch.tensor(3.0).sigmoid().item()
    low, high = pytest.approx(1 - sure), pytest.approx(sure)
    assert marked(left) == [[(low, 0), (high, 0)], [(high, 1)]]
    assert marked(right) == [[(low, 0)], [(low, 1), (high, 1)]]
    for words in (
        "mlp on four people: by sex, n = 4",
        "debiased: calibration",
        f"female: ECE {in_percent(1 - sure)}",
        "male: ECE 50.0 %",
    ):
        assert words in texts(figure)
    figure.savefig(tmp_path / "groups.png")
