"""One picture of a sweep: which form it takes, and that every number is in it."""

import itertools

import numpy as np
import pandas
import pytest
from matplotlib.figure import Figure

from tests.helpers import band, points, whiskers
from trustml_cli.results.aggregate import Answers
from trustml_cli.sweeps.plot import sweep_figure

CONDITIONS = ["task", "model", "epsilon", "lr"]


def summary(models: list[str], epsilons: list[float], rates: list[float]) -> pandas.DataFrame:
    rows = [
        {"task": "fgsm", "model": model, "epsilon": epsilon, "lr": rate, "seeds": 3, "accuracy": 0.9 - epsilon - rate,
         "accuracy_pooled_ci_low": 0.85 - epsilon - rate, "accuracy_pooled_ci_high": 0.95 - epsilon - rate}
        for model, epsilon, rate in itertools.product(models, epsilons, rates)
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def drawn(models: list[str], epsilons: list[float], rates: list[float]) -> Figure:
    return sweep_figure([Answers("accuracy", summary(models, epsilons, rates), CONDITIONS)])


def test_one_number_is_a_line_for_each_series_with_its_band() -> None:
    answers = Answers("accuracy", summary(["mlp", "cnn"], [0.2, 0.0, 0.1], [0.1]), CONDITIONS)
    lower = answers.summary.model == "cnn"
    answers.summary.loc[lower, list(answers.summary.filter(like="accuracy"))] -= 0.25
    (panel,) = sweep_figure([answers]).axes
    for number, heights in enumerate(((0.8, 0.7, 0.6), (0.55, 0.45, 0.35))):
        assert points(panel, number) == [pytest.approx(point) for point in zip((0.0, 0.1, 0.2), heights, strict=True)]
        assert band(panel, number) == [pytest.approx((height - 0.05, height + 0.05)) for height in heights]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("epsilon", "accuracy")
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["mlp", "cnn"]
    assert "3 seeds" in panel.get_title()


def test_a_series_without_a_value_has_no_line_and_no_name() -> None:
    answers = Answers("accuracy", summary(["mlp", "cnn"], [0.2, 0.0], [0.1]), CONDITIONS)
    answers.summary.loc[answers.summary.model == "cnn", "accuracy"] = np.nan
    (panel,) = sweep_figure([answers]).axes
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["mlp"]
    assert len(panel.lines) == 1


def test_from_four_lines_on_each_has_a_panel_with_the_others_in_grey() -> None:
    panels = drawn(["mlp", "cnn", "bnn", "logistic"], [0.0, 0.1], [0.1]).axes
    assert [panel.get_title() for panel in panels] == ["mlp", "cnn", "bnn", "logistic"]
    for panel in panels:
        assert [points(panel, number)[0] for number in range(5)] == [(0.0, 0.8)] * 5
        assert len({line.get_color() for line in panel.lines[:4]}) == 1 != panel.lines[4].get_color()
        assert len(panel.collections) == 1, "one band"
        assert panel.yaxis.get_major_formatter()(0.8, None) == "80 %"


def test_two_numbers_are_a_heat_map_with_every_value() -> None:
    panel = drawn(["mlp"], [0.0, 0.1], [0.1, 0.2, 0.3]).axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("epsilon", "lr")
    cells = {(x, y): 0.9 - epsilon - lr for x, epsilon in enumerate((0.0, 0.1)) for y, lr in enumerate((0.1, 0.2, 0.3))}
    assert {text.get_position(): text.get_text() for text in panel.texts} == {
        place: f"{100 * value:.1f}" for place, value in cells.items()
    }
    image = np.asarray(panel.images[0].get_array())
    assert {(x, y): image[y, x] for x, y in cells} == pytest.approx(cells)
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["0.1", "0.2", "0.3"]


def test_a_heat_map_promises_no_interval() -> None:
    assert drawn(["mlp"], [0.0, 0.1], [0.1, 0.2]).axes[0].get_title() == "accuracy: mean of 3 seeds"


def test_names_are_bars() -> None:
    answers = Answers("accuracy", summary(["mlp", "cnn", "logistic"], [0.0], [0.1]), CONDITIONS)
    answers.summary.loc[1, list(answers.summary.filter(like="accuracy"))] -= 0.25
    (panel,) = sweep_figure([answers]).axes
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([0.8, 0.55, 0.8])
    assert whiskers(panel, 0) == [pytest.approx((value - 0.05, value + 0.05)) for value in (0.8, 0.55, 0.8)]
    assert panel.get_xlabel() == "accuracy"
    assert [label.get_text() for label in panel.get_yticklabels()] == ["mlp", "cnn", "logistic"]


def test_a_condition_that_some_rows_lack_is_named_where_nothing_else_tells_them_apart() -> None:
    for models, labels in ((["mlp", "cnn"], ["mlp", "cnn"]), (["mlp", "mlp"], ["–", "0.25"])):
        answers = Answers("accuracy", summary(models, [0.0], [0.1]), CONDITIONS)
        answers.summary["epsilon"] = [np.nan, 0.25]
        (panel,) = sweep_figure([answers]).axes
        assert [label.get_text() for label in panel.get_yticklabels()] == labels


def test_a_line_is_not_cut_by_a_condition_that_follows_from_what_is_swept() -> None:
    answers = Answers("accuracy", summary(["clean", "fgsm"], [0.0], [0.1, 0.2]), CONDITIONS)
    answers.summary["epsilon"] = [np.nan, np.nan, 0.1, 0.2]
    (panel,) = sweep_figure([answers]).axes
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["clean", "fgsm"]


def test_nothing_swept_but_the_seed_is_one_bar() -> None:
    (panel,) = drawn(["mlp"], [0.0], [0.1]).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["all"]


def test_two_questions_are_a_panel_each_with_a_figure_of_its_own() -> None:
    curve = Answers("accuracy", summary(["mlp"], [0.0, 0.1], [0.1]), CONDITIONS)
    other = summary(["mlp", "cnn"], [0.0], [0.1]).rename(columns=lambda name: name.replace("accuracy", "auroc"))
    above, below = sweep_figure([curve, Answers("auroc", other, CONDITIONS)]).axes
    assert (above.get_ylabel(), below.get_xlabel()) == ("accuracy", "AUROC")
    assert list(above.lines[0].get_ydata()) == [0.8, pytest.approx(0.7)]
    assert [bar.get_width() for bar in below.patches] == [0.8, 0.8]
