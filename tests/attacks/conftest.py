"""A small model with gradients that do not vanish, and images for it."""

import pytest
import torch
from torch import Tensor, nn


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
