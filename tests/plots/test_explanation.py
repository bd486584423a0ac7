"""The pictures of explanations: every image, map, curve and number."""

import numpy as np
import pytest
import torch

from tests.helpers import drawn, points, texts
from trustml_cli.explainers.measure import Explained
from trustml_cli.plots.explanation import correlation_matrix, methods_side_by_side, one_method, replacement_curves

IMAGES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
CAPTIONS = ["cat (90%)", "dog (80%)", "cat (70%)"]


def explained(middle: float) -> Explained:
    deletion = torch.tensor([[1.0, middle, 0.0]]).expand(3, 3)
    return Explained(torch.ones(3, 3, 4, 4), deletion, 1 - deletion, torch.zeros(3, 1), 0.0)


def shown(figure: object, number: int) -> np.ndarray:
    return np.asarray(figure.axes[number].images[0].get_array())  # type: ignore[attr-defined]


def test_the_map_and_its_product_stand_below_the_image() -> None:
    rate = 2 * torch.ones(3, 3, 4, 4)
    maps = {"saliency": rate, "saliency_x_input": rate * IMAGES}
    figure = one_method(IMAGES, CAPTIONS, maps, "saliency: cnn")
    assert len(figure.axes) == 9
    np.testing.assert_allclose(shown(figure, 3), 6.0)  # three channels of 2
    np.testing.assert_allclose(shown(figure, 7), 2 * IMAGES[1].sum(0), rtol=1e-6)
    for words in ("saliency", "saliency\n× input", "image", "cat (90%)", "dog (80%)", "saliency: cnn"):
        assert words in texts(figure)


def test_a_contribution_has_one_map() -> None:
    assert len(one_method(IMAGES, CAPTIONS, {"occlusion": IMAGES}, "x").axes) == 6


def test_methods_stand_side_by_side_with_zero_in_the_middle_of_the_scale() -> None:
    methods = {"saliency": torch.ones(3, 3, 4, 4), "input_x_gradient": -IMAGES}
    figure = methods_side_by_side(IMAGES, CAPTIONS, methods, "cnn on digits")
    assert len(figure.axes) == 9
    for row in range(3):
        np.testing.assert_allclose(shown(figure, 3 * row), IMAGES[row].permute(1, 2, 0))
        np.testing.assert_allclose(shown(figure, 3 * row + 1), 3.0)
        np.testing.assert_allclose(shown(figure, 3 * row + 2), -IMAGES[row].sum(0), rtol=1e-6)
    for number in (1, 2, 4, 5, 7, 8):
        low, high = figure.axes[number].images[0].get_clim()
        assert low == -high
    for words in ("saliency", "input_x\ngradient", "cnn on digits", *CAPTIONS):
        assert words in texts(figure)


def test_deletion_and_insertion_have_a_line_and_an_area_for_each_method() -> None:
    figure = replacement_curves({"saliency": explained(0.5), "occlusion": explained(0.25)}, "cnn")
    for panel, kept, areas in ((figure.axes[0], True, ("0.50", "0.38")), (figure.axes[1], False, ("0.50", "0.62"))):
        for number, middle in enumerate((0.5, 0.25)):
            heights = (1.0, middle, 0.0) if kept else (0.0, 1 - middle, 1.0)
            assert points(panel, number) == list(zip((0.0, 0.5, 1.0), heights, strict=True))
        legend = panel.get_legend()
        assert legend is not None
        names = [text.get_text() for text in legend.get_texts()]
        assert names == [f"saliency ({areas[0]})", f"occlusion ({areas[1]})"]  # (1 + 2·middle)/4 and what is left of 1
    for words in ("lower is better", "higher is better", "share of pixels deleted", "3 test examples"):
        assert words in texts(figure)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_every_two_methods_have_their_correlation(names: tuple[str, ...]) -> None:
    table = {
        one: {other: torch.tensor([1.0] if one == other else [-0.5, 0.25 * row]) for other in names}
        for row, one in enumerate(names)
    }
    figure = correlation_matrix(table, "cnn", 7)
    panel = figure.axes[0]
    expected = {
        (row, column): 1.0 if row == column else 0.125 * row - 0.25
        for row in range(len(names))
        for column in range(len(names))
    }
    np.testing.assert_allclose(drawn(panel).flatten(), list(expected.values()), rtol=1e-6)
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in panel.texts}
    assert written == {place: f"{value:.2f}" for place, value in expected.items()}
    assert [tick.get_text() for tick in panel.get_yticklabels()] == list(names)
    for words in (*names, "7 test examples"):
        assert words in texts(figure)
