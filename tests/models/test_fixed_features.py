"""Histograms of oriented gradients: by hand, what they must not depend on, and that training computes them once."""

from math import pi
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice
from tests.helpers import CPU
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.models.fixed_features import OrientedGradients
from trustml_cli.models.model import FixedFirst, InputSpec


def ramp(degrees: float, side: int = 24) -> Tensor:
    """An image whose gradient has one direction everywhere; 0 degrees is to the right, 90 downwards."""
    turn = torch.tensor(degrees * pi / 180)
    places = torch.arange(side) / (4 * side)
    return (0.5 + turn.cos() * places + turn.sin() * places[:, None])[None, None]


@pytest.mark.parametrize(
    ("degrees", "shares"),
    [
        (0, {0: 1.0}),
        (90, {2: 1.0}),
        (180, {4: 1.0}),
        (315, {7: 1.0}),
        (60, {1: 2 / 3, 2: 1 / 3}),  # 60 degrees are a third of the way from 45 to 90
        (336, {7: 8 / 15, 0: 7 / 15}),
    ],
)
@pytest.mark.parametrize("cell", [4, 3])
def test_a_gradient_votes_for_the_two_nearest_orientations(degrees: float, shares: dict[int, float], cell: int) -> None:
    features = OrientedGradients(cell, 8)(ramp(degrees)).view(8, 24 // cell, 24 // cell)
    inner = features[:, 2:-2, 2:-2].square()  # the root is undone
    expected = torch.tensor([shares.get(number, 0.0) for number in range(8)])
    for row, column in ((0, 0), (1, 0), (-1, -1)):
        here = inner[:, row, column]
        torch.testing.assert_close(here / here.sum(), expected, atol=2e-3, rtol=0)


def test_a_gradient_votes_for_the_four_nearest_cells() -> None:
    """One pixel beside an edge of its own has, by cells of 4 pixels, distances 1/8 and 7/8 to two cell centres each."""
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 5, 6] = 1.0  # gradients: +1 at column 5, −1 at column 7, +1 at row 4, −1 at row 6
    features = OrientedGradients(4, 4)(image).view(4, 4, 4).square()
    right = features[0] / features[0].sum()
    # row 5 is 0.5 pixels above the centre of cell row 1 (5.5), column 5 as much left of that of column 1
    expected = torch.zeros(4, 4)
    expected[:2, :2] = torch.tensor([[1 / 64, 7 / 64], [7 / 64, 49 / 64]])
    torch.testing.assert_close(right, expected, atol=2e-3, rtol=0)


def test_features_do_not_depend_on_contrast_and_their_norm_is_that_of_the_cells() -> None:
    image = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    features = OrientedGradients(5, 6)
    plain = features(image)
    assert plain.shape == (2, 6 * 4 * 5)
    torch.testing.assert_close(features(0.3 + 0.4 * image), plain, atol=1e-3, rtol=0)
    torch.testing.assert_close(plain.square().sum(1), torch.tensor([20.0, 20.0]), atol=0.05, rtol=0)
    assert features(torch.full((1, 3, 20, 28), 0.5)).norm() < 0.2  # nothing to be seen


def test_a_quarter_turn_of_the_image_turns_cells_and_orientations() -> None:
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    features = OrientedGradients(4, 8)
    plain, turned = (features(each).view(8, 4, 4) for each in (image, image.rot90(-1, (2, 3))))
    torch.testing.assert_close(turned, plain.rot90(-1, (1, 2)).roll(2, 0))


def test_gradients_by_the_pixels_are_finite_where_nothing_is_to_be_seen() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4] = 1.0
    image.requires_grad_(True)
    (gradient,) = torch.autograd.grad(OrientedGradients(2, 8)(image).sum(), image)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("shape", "values"), [((1, 8, 8), 4 * 4), ((1, 28, 28), 7 * 7), ((3, 32, 32), 8 * 8), ((3, 224, 300), 7 * 9)]
)
def test_the_number_of_features_hardly_depends_on_the_size_of_images(shape: tuple[int, ...], values: int) -> None:
    model: Any = build(choice("model", "fixed_features"), "model")
    channels = (0.5,) * shape[0]
    network = model.network(InputSpec(shape, 10, channels, channels))
    assert isinstance(network, FixedFirst)
    assert network.head.in_features == 8 * values
    with pytest.raises(ValueError, match="at least 8×8, got 7×9"):
        model.network(InputSpec((1, 7, 9), 10, (0.5,), (0.5,)))


class Counted(nn.Flatten):
    """Counts the examples that it is called with."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x) - 0.5


def test_training_computes_fixed_features_once_and_learns_as_if_it_did_in_each_epoch(tiny_data: Dataset) -> None:
    values = tiny_data.train.shape[0] * tiny_data.train.shape[1] * tiny_data.train.shape[2]
    trainer: Any = build(choice("trainer", "default", **{"epochs": 3, "batch_size": 16}), "trainer")
    weights, seen = [], []
    for kind in (FixedFirst, nn.Sequential):
        torch.manual_seed(0)
        features = Counted()
        network = nn.Sequential(nn.Identity(), kind(features, nn.Linear(values, len(tiny_data.classes))))
        before = network[1][1].weight.detach().clone()
        trainer.fit(network, tiny_data, CPU, lambda epoch: None)
        assert not torch.equal(network[1][1].weight, before)
        weights.append(network[1][1].weight.detach())
        seen.append(features.seen)
    torch.testing.assert_close(*weights)
    assert seen[0] == len(tiny_data.train) + len(tiny_data.test)
    assert seen[1] > 2 * seen[0]
