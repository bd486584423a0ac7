"""Small models with gradients that do not vanish, and images for them."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from trustml_cli.hardware import own_randomness


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a network that is trained are no unit tests."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "digits" in getattr(item, "fixturenames", ()):
            item.add_marker("e2e")


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


@pytest.fixture(scope="session")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network trained on digits with noise, and 120 others that it reads right."""
    data = load_digits()
    x, y = torch.tensor(data.images / 16, dtype=torch.float)[:, None], torch.tensor(data.target)
    with own_randomness(0):
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(12):
            for batch in torch.randperm(1500).split(100):
                noisy = (x[batch] + 0.1 * torch.randn_like(x[batch])).clamp(0, 1)
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(noisy), y[batch]).backward()
                optimizer.step()
    model.eval().requires_grad_(False)
    right = 1500 + (model(x[1500:]).argmax(1) == y[1500:]).nonzero()[:120, 0]
    return model, x[right], y[right]
