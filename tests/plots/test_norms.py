"""The picture of look-alikes: each below its original and above the nearest of another class, with distances."""

import numpy as np
import torch

from tests.helpers import texts
from trustml_cli.plots.norms import Pair, pairs_by_norm
from trustml_cli.plots.style import GREEN, ORANGE


def test_pairs_have_distances_and_answers() -> None:
    images = tuple(torch.full((1, 4, 4), value) for value in (0.1, 0.2, 0.9))
    pairs = [
        Pair("l0", "every value by 1/255", images, (64, 28), ("2", "2"), "3"),  # type: ignore[arg-type]
        Pair("l2", "shift by 1 px", images, (3.157, 1.5), ("2", "7"), "5"),  # type: ignore[arg-type]
    ]
    figure = pairs_by_norm(pairs, "mlp on digits")
    (panel,) = figure.axes
    captions = {text.get_text(): text.get_color() for text in panel.texts}
    assert captions["L0 64, answer 2"] == GREEN
    assert captions["L2 3.16, answer 7"] == ORANGE
    assert {"L0 28, class 3", "L2 1.5, class 5", "every value by 1/255", "looks the same"} <= set(captions)
    assert [float(np.max(image.get_array())) for image in panel.images] == [np.float32(v) for v in (0.1, 0.2, 0.9)] * 2
    assert "mlp on digits" in texts(figure)
