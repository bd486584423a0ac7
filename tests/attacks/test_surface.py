"""The loss around an image, against a closed form on a linear model."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.surface import loss_surface
from trustml_cli.system.hardware import seeded


class Linear(nn.Module):
    """Two classes of 1×1×2 images; logits (0, 3a − 4b)."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ torch.tensor([3.0, -4.0])
        return torch.stack([torch.zeros_like(score), score], 1)


def test_the_loss_rises_along_the_gradient_as_worked_out() -> None:
    x, y = torch.tensor([[[[0.5, 0.25]]]]), torch.tensor([1])  # a score of 0.5
    with seeded(0):
        surface = loss_surface(Linear(), x, y, 0.2, Norm.linf, points=5)
    with seeded(0):
        signs = torch.randn_like(x).sign().flatten()
    torch.testing.assert_close(surface.offsets, torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2]))
    aside = float(signs @ torch.tensor([3.0, -4.0]))
    # the gradient's sign is (−1, +1), along which the score falls by 7
    score = 0.5 + surface.offsets[:, None] * aside - 7 * surface.offsets
    torch.testing.assert_close(surface.loss, softplus(-score))
    torch.testing.assert_close(surface.margin, score)
    assert surface.label == 1


def test_the_loss_of_a_model_that_is_sure_of_itself_is_not_flat() -> None:
    x, y = torch.tensor([[[[0.5, 0.25]]]]), torch.tensor([1])
    sure = nn.Sequential(Linear(), Times(60.0))  # a score of 30: the cross-entropy of torch is 0 in float32
    surface = loss_surface(sure, x, y, 0.001, Norm.linf, points=3)
    assert nn.functional.cross_entropy(sure(x), y) == 0
    assert surface.loss[1, 1].item() == pytest.approx(math.exp(-30), rel=1e-4)
    assert (surface.loss[1].diff() > 0).all()


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits
