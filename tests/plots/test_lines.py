"""Lines with intervals, and the plots of corruptions, calibration and sets that are made of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from tests.helpers import band, points
from trustml_cli.plots.calibration import PALE, calibration_under_perturbation, reliability_points
from trustml_cli.plots.conformal import coverage_under_perturbation
from trustml_cli.plots.corruption import accuracy_over_strength, corrupted_images
from trustml_cli.plots.lines import Line
from trustml_cli.plots.style import new_figure, save


def row(value: float, names: tuple[str, ...] = ("accuracy", "ece", "coverage", "set_size"), **condition: Any) -> Any:
    ends = {f"{name}_ci_{end}": value + by for name in names for end, by in (("low", -0.05), ("high", 0.05))}
    return condition | dict.fromkeys(names, value) | ends


def test_rows_are_drawn_in_order_with_their_intervals() -> None:
    panel = Figure().subplots()
    Line.of_rows([row(0.5, at=2), row(0.8, at=1)], "at", "accuracy").draw(panel, "red", "")
    assert points(panel, 0) == [(1, 0.8), (2, 0.5)]
    assert band(panel, 0) == [pytest.approx((0.75, 0.85)), pytest.approx((0.45, 0.55))]


def test_each_corruption_has_a_panel_with_its_own_accuracy_and_the_mean() -> None:
    rows = [
        row(0.9, corruption="none", severity=0),
        row(0.7, corruption="mean", severity=1),
        row(0.8, corruption="fog", severity=1),
        row(0.6, corruption="snow_storm", severity=1),
    ]
    mean, fog, snow = accuracy_over_strength(rows, "cnn").axes
    assert [panel.get_title() for panel in (mean, fog, snow)] == ["mean", "fog", "snow storm"]
    assert [points(panel, number) for panel, number in ((mean, 0), (fog, 0), (fog, 1), (snow, 1))] == [
        [(0, 0.9), (1, 0.7)], [(0, 0.9), (1, 0.7)], [(0, 0.9), (1, 0.8)], [(0, 0.9), (1, 0.6)],
    ]  # fmt: skip


def test_corrupted_images_have_their_answers_and_wrong_ones_are_orange() -> None:
    image = torch.rand(1, 2, 2)
    figure = corrupted_images({"fog": [(image, "cat", True)] + 2 * [(1 - image, "dog", False)]}, [3, 4], "cnn")
    colors = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colors["dog"] == "#C44E00" != colors["cat"]
    assert {"clean", "strength 3", "strength 4", "fog"} <= set(colors)


def test_in_one_strength_the_clean_image_is_shown_once() -> None:
    image = torch.rand(1, 2, 2)
    shown = {f"fog_{number}": [(image, "cat", True), (1 - image, "dog", False)] for number in range(7)}
    figure = corrupted_images(shown, [3], "cnn")
    written = {text.get_text(): text.get_color() for text in figure.axes[0].texts if text.get_text()}
    assert list(written) == ["clean: cat", *(f"fog {number}: dog" for number in range(7))]
    assert written["fog 3: dog"] == "#C44E00" != written["clean: cat"]
    assert len(figure.axes[0].images) == 8


def test_a_title_wider_than_its_figure_is_made_smaller(tmp_path: Path) -> None:
    figure, _ = new_figure(2, 1)
    title, short = figure.suptitle("a title that is too long for two inches", fontsize=11), figure.supxlabel("x")
    before = short.get_fontsize()
    save(figure, tmp_path / "small.png")
    assert title.get_window_extent().width <= figure.bbox.width
    assert short.get_fontsize() == before


def test_each_calibrator_stands_beside_the_network_without_one() -> None:
    clean = {"perturbation": "none", "strength": 0.0}
    rows = [
        row(value, calibrator=name, **where)
        for name, values in (("none", (0.1, 0.2)), ("vector", (0.05, 0.4)))
        for value, where in zip(values, (clean, {"perturbation": "fog", "strength": 3.0}), strict=True)
    ]
    (panel,) = calibration_under_perturbation(rows, "cnn").axes
    assert panel.get_ylabel() == "vector"
    drawn = [points(panel, number) for number in range(3)]
    assert drawn[1:] == [[(0, 0.1), (3, 0.2)], [(0, 0.05), (3, 0.4)]]


def test_coverage_and_size_of_each_method_stand_over_the_strength() -> None:
    clean = {"perturbation": "none", "strength": 0.0}
    rows = [row(0.9, conformal="lac", **clean), row(0.5, conformal="lac", perturbation="shift", strength=2.0)]
    above, below = coverage_under_perturbation(rows, 0.9, "cnn").axes
    assert points(above, 0) == points(below, 0) == [(0, 0.9), (2, 0.5)]
    assert below.get_xlabel() == "pixels"


def test_bins_with_few_examples_are_pale() -> None:
    panel = Figure().subplots()
    counts, right, sure = torch.tensor([10, 2]), torch.tensor([4.0, 1.0]), torch.tensor([4.0, 1.8])
    reliability_points(panel, counts, right, sure, color="red", fewest=5)
    colors = {tuple(line.get_xydata()[0]): line.get_color() for line in panel.lines if line.get_marker() == "o"}
    assert list(colors.values()) == ["red", PALE]
    assert list(colors) == [pytest.approx((0.4, 0.4)), pytest.approx((0.9, 0.5))]
