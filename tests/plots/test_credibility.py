"""What the plots of credibility show."""

import pytest
import torch

from tests.helpers import heights, points, texts, whiskers
from trustml_cli.ood.dknn import Support
from trustml_cli.plots.credibility import (
    Judged,
    all_of,
    auroc_bars,
    credibility_curves,
    nearest_images,
    reliability,
    support_by_layer,
)


def judged(credibility: float) -> Judged:
    """Eight images in two layers, half of them taken for class 1 by the neighbours, all by the network."""
    p_values = torch.full((8, 3), 0.1).double()
    p_values[:4, 0], p_values[4:, 1] = credibility, credibility
    neighbours = torch.arange(2).repeat(2, 8, 1)
    support = Support(p_values, p_values.repeat(2, 1, 1), neighbours)
    agreeing = torch.tensor([[0.25], [0.75]]).expand(2, 8)
    return Judged(
        torch.rand(8, 1, 4, 4), torch.ones(8).long(), torch.full((8,), 0.9), ["a", "b"], support, agreeing, {}
    )


def test_parts_are_joined_in_order() -> None:
    parts = [judged(0.3), judged(0.8)]
    whole = all_of(parts)
    assert whole.support.credibility.tolist() == pytest.approx([0.3] * 8 + [0.8] * 8)
    assert whole.agreeing.shape == (2, 16)
    assert torch.equal(whole.images[8:], parts[1].images)


def test_bars_have_the_areas_and_their_intervals() -> None:
    figure = auroc_bars({"noisy": {"dknn": (0.9, 0.8, 0.95), "msp": (0.7, 0.6, 0.75)}}, "cnn on digits")
    (panel,) = figure.axes
    assert heights(panel) == [[0.9], [0.7]]
    assert [end for number in range(2) for end in whiskers(panel, number)] == [
        pytest.approx((0.8, 0.95)),
        pytest.approx((0.6, 0.75)),
    ]
    assert "noisy" in texts(figure)


def test_curves_of_credibility_layers_and_reliability() -> None:
    both = {"clean": judged(0.85), "fgsm": judged(0.15)}
    (panel,) = credibility_curves(both, 0.05, "cnn on digits").axes
    assert points(panel, 1)[1] == pytest.approx((0.15, 1 / 8))
    assert points(panel, 2)[0][0] == 0.05  # where images are flagged
    (panel,) = support_by_layer(both, "cnn on digits").axes
    assert [y for _, y in points(panel, 0)] == [0.25, 0.75]
    above, _, below, _ = reliability(both, torch.ones(8).long(), "cnn on digits").axes
    assert points(above, 1) == [pytest.approx((0.85, 0.5))]  # of the neighbours' answers half are right
    assert points(below, 1) == [pytest.approx((0.9, 1.0))]


def test_neighbours_stand_beside_their_image() -> None:
    rows = [("clean", judged(0.85), 0, None), ("fgsm", judged(0.15), 5, 0)]
    references, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    figure = nearest_images(rows, 2, references, labels, {0: "a", 1: "b"}, ("zero", "one", "two"), "cnn on digits")
    (panel,) = figure.axes
    assert len(panel.images) == 2 + 2 * 2 * 2
    colors = {text.get_text(): text.get_color() for text in panel.texts}
    assert {"zero (0.85)", "one (0.15), is zero", "a", "b", "clean", "fgsm"} <= set(colors)
    kinds = [text.get_color() for text in panel.texts if text.get_text() == "zero"]
    assert kinds == ["black", "#C44E00", "black", "#C44E00"]  # of the row of the class, and of the other one
