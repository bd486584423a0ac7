"""Contact sheets: every image with its name, answer and confidence, and those that are unlike marked in words too."""

import pytest
import torch

from tests.helpers import drawn, texts
from trustml_cli.plots.predictions import Answered, contact_sheet


@pytest.mark.parametrize("mapped", [True, False])
def test_every_image_has_its_words_and_its_map(mapped: bool) -> None:
    saliency = torch.tensor([[[0.0, -2.0], [1.0, 0.0]]])
    answers = [
        Answered(f"a_rather_long_name_{number}.png", "cat", 0.5, 1.0, number == 2, torch.rand(1, 2, 2),
                 saliency if mapped else None)
        for number in range(3)
    ]  # fmt: skip
    figure = contact_sheet(answers, "three", columns=2)
    (axes,) = figure.axes
    words = [text.get_text() for text in axes.texts]
    assert words == [
        "a_rathe…me_0.png\ncat (50 %)",
        "a_rathe…me_1.png\ncat (50 %)",
        "a_rathe…me_2.png\ncat (50 %), unlike",
    ]
    assert len(axes.images) == (6 if mapped else 3)
    assert ("saliency" in texts(figure)) is mapped
    if mapped:
        assert axes.images[1].get_array().tolist() == [[0, 1], [0.5, 0]]  # type: ignore[union-attr]
        assert drawn(axes).tolist() == answers[0].pixels[0].tolist()
    left, right, low, high = axes.images[-1].get_extent()  # in the second row, first column
    assert (left, right) == (0, 1)
    assert max(low, high) > 1
