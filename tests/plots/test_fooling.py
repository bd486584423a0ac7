"""The pictures of images that look like nothing and are taken for something."""

import torch

from tests.helpers import drawn, heights, texts
from trustml_cli.plots.fooling import fooling_images, fooling_rates
from trustml_cli.plots.style import ORANGE


def test_each_method_has_a_row_and_each_class_a_column() -> None:
    shown = {
        method: {
            name: (torch.full((1, 2, 2), base + step), base + step, taken)
            for name, step, taken in (("cat", 0.0, False), ("dog", 0.1, True), ("emu", 0.2, False))
        }
        for method, base in (("noise", 0.1), ("many_steps", 0.5))
    }
    figure = fooling_images(shown, "cnn on pets", 0.25)
    assert [axes.get_title() for axes in figure.axes] == [
        "cat: 10 %", "dog: 20 %", "emu: 30 %", "cat: 50 %", "dog: 60 %", "emu: 70 %",
    ]  # fmt: skip
    for axes, value in zip(figure.axes, (0.1, 0.2, 0.3, 0.5, 0.6, 0.7), strict=True):
        assert drawn(axes).tolist() == [[torch.tensor(value).item()] * 2] * 2
    assert [axes.title.get_color() == ORANGE for axes in figure.axes] == [False, True, False] * 2
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["noise", "many steps"]
    assert "cnn on pets: noise changed by up to 0.25" in texts(figure)


def test_bars_are_the_shares_that_fool() -> None:
    figure = fooling_rates({"noise": {"cat": 0.0, "dog": 0.1}, "one_step": {"cat": 0.75, "dog": 0.5}}, "cnn", 20, 0.5)
    (panel,) = figure.axes
    assert heights(panel) == [[0.0, 0.1], [0.75, 0.5]]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["cat", "dog"]
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["noise", "one step"]
    for words in ("cnn: 20 noise images for each class", "classified as", "fooled, confidence ≥ 50 %"):
        assert words in texts(figure)


def test_of_many_classes_the_first_are_shown_and_the_title_says_so() -> None:
    names = [f"class {number}" for number in range(21)]
    images = fooling_images({"noise": {name: (torch.zeros(1, 1, 1), 0.5, True) for name in names}}, "cnn", 0.25)
    rates = fooling_rates({"noise": dict.fromkeys(names, 0.5)}, "cnn", 20, 0.5)
    assert (len(images.axes), len(rates.axes[0].patches)) == (20, 20)
    for figure in (images, rates):
        assert "for each class, the first 20 of 21" in texts(figure)
