"""The pictures of explanations: every image, map, curve and number."""

import numpy as np
import pytest
import torch

from tests.helpers import drawn, points, texts
from trustml_cli.explainers.measure import Explained
from trustml_cli.plots.explanation import correlation_matrix, maps_of_images, replacement_curves

IMAGES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
CAPTIONS = ["cat (90 %)", "dog (80 %)\nis cat", "cat (70 %)"]


def explained(middle: float) -> Explained:
    deletion = torch.tensor([[1.0, middle, 0.0]]).expand(3, 3)
    return Explained(torch.ones(3, 3, 4, 4), deletion, 1 - deletion, torch.zeros(3, 1), 0.0)


def shown(figure: object, number: int) -> np.ndarray:
    return np.asarray(figure.axes[number].images[0].get_array())  # type: ignore[attr-defined]


def test_maps_stand_below_their_image_with_zero_in_the_middle_of_the_scale() -> None:
    maps = {"saliency": 2 * torch.ones(3, 3, 4, 4), "saliency_x_input": 2 * IMAGES, "input_x_gradient": -IMAGES}
    figure = maps_of_images(IMAGES, CAPTIONS, maps, "cnn on digits")
    assert len(figure.axes) == 12
    for column in range(3):
        np.testing.assert_allclose(shown(figure, column), IMAGES[column].permute(1, 2, 0))
        np.testing.assert_allclose(shown(figure, 3 + column), 6.0)  # three channels of 2
        np.testing.assert_allclose(shown(figure, 6 + column), 2 * IMAGES[column].sum(0), rtol=1e-6)
        np.testing.assert_allclose(shown(figure, 9 + column), -IMAGES[column].sum(0), rtol=1e-6)
    for panel in figure.axes[3:]:
        low, high = panel.images[0].get_clim()
        assert low == -high
    assert [panel.title.get_color() for panel in figure.axes[:3]] == ["black", "#C44E00", "black"]  # the wrong one
    for words in ("image", "saliency", "saliency\n× input", "input\n× gradient", "cnn on digits", *CAPTIONS):
        assert words in texts(figure)


def test_deletion_and_insertion_have_a_line_and_an_area_for_each_method() -> None:
    figure = replacement_curves({"saliency": explained(0.5), "occlusion": explained(0.25)}, "cnn")
    for panel, kept in ((figure.axes[0], True), (figure.axes[1], False)):
        for number, middle in enumerate((0.5, 0.25)):
            heights = (1.0, middle, 0.0) if kept else (0.0, 1 - middle, 1.0)
            assert points(panel, number) == list(zip((0.0, 0.5, 1.0), heights, strict=True))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["saliency: 0.50, 0.50", "occlusion: 0.38, 0.62"]  # (1 + 2·middle)/4 and what is left of 1
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
