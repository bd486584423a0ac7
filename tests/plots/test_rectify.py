"""What the pictures of a rectifier say."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import heights, whiskers
from trustml_cli.defences.measure import RectifiedResult
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.rectify import accuracies, rectified_images
from trustml_cli.plots.style import GREEN, ORANGE


class Reddest(nn.Module):
    """Two classes: whether the left or the right pixel of 1×1×2 images is brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x.flatten(1)


class Mirror(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(-1)


def shown(images: torch.Tensor, bare: list[int], score: list[float]) -> RectifiedResult:
    said = torch.tensor(bare)
    count, truth = len(bare), torch.zeros(len(bare)).long()
    return RectifiedResult(truth, truth, said, 1 - said, torch.tensor(score), torch.zeros(count), images)


def test_bars_are_the_accuracies_with_and_without_the_rectifier() -> None:
    images = torch.rand(4, 1, 1, 2)
    kinds = {
        ("none", "none"): shown(images, [0, 0, 0, 0], [0.0] * 4),
        ("fgsm", "classifier"): shown(images, [1, 1, 1, 0], [1.0, 1.0, 0.0, 0.0]),
    }
    panel = accuracies(kinds, 0.5, "rectify").axes[0]
    assert heights(panel) == [
        [1.0, 0.25],
        [0.0, 0.75],
        [1.0, 0.75],
    ]  # two of four are sent to the rectifier
    for number, counts in enumerate(((4, 1), (0, 3), (4, 3))):
        assert whiskers(panel, number) == [pytest.approx(wilson_interval(count, 4)) for count in counts]
    assert [text.get_text() for text in panel.texts] == ["100.0", "25.0", "0.0", "75.0", "100.0", "75.0"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["clean", "fgsm\nmade on classifier"]
    assert "4 test images" in panel.get_title()


def test_images_stand_under_each_other_with_answers_and_the_detectors_verdict() -> None:
    images = torch.tensor([[0.9, 0.1], [0.2, 0.6]]).view(2, 1, 1, 2)
    kinds = {
        ("none", "none"): shown(images, [0, 0], [0.0, 0.0]),
        ("fgsm", "classifier"): shown(images.flip(-1), [1, 0], [0.9, 0.1]),
    }
    figure = rectified_images(kinds, nn.Sequential(Mirror(), Reddest()), 0.5, ("left", "right"), 2, "rectify")
    (panel,) = figure.axes
    left, right = (
        [0.9, 0.1],
        [0.2, 0.6],
    )  # rectified images are mirrored, perturbed ones too
    rows = [left, right, left[::-1], right[::-1], left[::-1], right[::-1], left, right]
    drawn = [
        np.asarray(image.get_array()).ravel() for image in sorted(panel.images, key=lambda each: each.get_extent()[3])
    ]
    assert [pixels.tolist() for pixels in drawn] == [pytest.approx(pixels) for pixels in rows]
    captions = {text.get_text() for text in panel.texts}
    assert {"is left", "left", "right", "left flagged", "clean", "rectified", "fgsm,\nmade on\nclassifier"} == captions
    colors = {text.get_text(): text.get_color() for text in panel.texts}
    assert (colors["left flagged"], colors["right"]) == (GREEN, ORANGE)
