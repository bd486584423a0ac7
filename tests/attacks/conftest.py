"""Small models with gradients that do not vanish, and images for them."""

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import TrainedDigits


@pytest.fixture
def model() -> nn.Module:
    """Three classes of 3×6×6 images; smooth and not too sure of itself."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, 3))
    return layers.eval().requires_grad_(False)


@pytest.fixture
def images(model: nn.Module) -> tuple[Tensor, Tensor]:
    """40 images and the classes that the model sees in them, so that it starts out right everywhere."""
    x = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return x, model(x).argmax(1)


@pytest.fixture
def linear_model() -> nn.Module:
    """Three classes of 3×6×6 images, linear; its images are those that it reads right."""
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    return layers.eval().requires_grad_(False)


@pytest.fixture
def digits(trained_digits: TrainedDigits) -> TrainedDigits:
    """A small network trained on digits with noise, and 120 others that it reads right."""
    return trained_digits
