"""The pictures of a pattern in the scene."""

import pytest
import torch

from tests.helpers import drawn, heights, texts, whiskers
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.physical import PatchedResult, pattern_picture, success_bars, worn_images
from trustml_cli.plots.style import GREEN, ORANGE

TARGET = 2


def patched(name: str, *pattern: int) -> PatchedResult:
    """Four scenes of the classes 0, 1, 0, 1; noise fools in the first, nothing else but the pattern does."""
    labels = torch.tensor([0, 1, 0, 1])
    predicted = {"pattern": torch.tensor(pattern), "noise": torch.tensor([TARGET, 1, 0, 1]), "bare": labels}
    examples = torch.stack([torch.full((1, 2, 2), step / 10) for step in (1, 2)])
    return PatchedResult(name, labels, predicted, torch.full((4,), 0.5), examples, torch.zeros_like(examples))


def test_bars_are_the_scenes_that_are_taken_for_the_target() -> None:
    figure = success_bars([patched("none", 2, 2, 2, 1), patched("rotation", 2, 1, 0, 2)], TARGET, "patch for 'emu'")
    (panel,) = figure.axes
    assert heights(panel) == [[0.75, 0.5], [0.25, 0.25], [0.0, 0.0]]
    for number, counts in enumerate(((3, 2), (1, 1), (0, 0))):
        assert whiskers(panel, number) == [pytest.approx(wilson_interval(count, 4)) for count in counts]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["none", "rotation"]
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["with the pattern", "with noise in its place", "bare"]
    for words in ("patch for 'emu'", "4 test images of other classes", "classified as the target"):
        assert words in texts(figure)


def test_scenes_stand_in_a_row_for_each_transformation_with_what_is_seen() -> None:
    figure = worn_images(
        [patched("none", 2, 1, 2, 1), patched("rotation", 1, 2, 0, 2)], ("cat", "dog", "emu"), TARGET, "x"
    )
    bare, worn = figure.axes[:2], figure.axes[2:]
    assert [axes.get_title() for axes in bare] == ["is cat\nseen as cat", "is dog\nseen as dog"]
    assert [axes.get_title() for axes in worn] == ["emu", "dog", "dog", "emu"]
    assert [axes.title.get_color() for axes in figure.axes] == [GREEN, GREEN, ORANGE, GREEN, "black", ORANGE]
    assert [drawn(axes)[0, 0] for axes in figure.axes] == pytest.approx([0, 0, *[0.1, 0.2] * 2])
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["bare", "none", "rotation"]


def test_the_pattern_is_shown_as_it_is() -> None:
    pattern = torch.tensor([[[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]])
    figure = pattern_picture(pattern, "patch")
    assert drawn(figure.axes[0]).tolist() == pattern[0].tolist()
    assert "3×2 pixels" in texts(figure)
