"""Three kinds of 1×3×4 images, a linear network that knows them, and grey images that are none of the three."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.models.features import logits_and_features
from trustml_cli.ood.detector import ModelOutputs

ROWS = torch.eye(3)  # kind k has its k-th row bright


@dataclass
class World:
    network: nn.Module
    training: ModelOutputs
    labels: Tensor
    inliers: ModelOutputs
    outliers: ModelOutputs


@pytest.fixture(scope="session")
def world() -> World:
    random = torch.Generator().manual_seed(0)
    linear = nn.Linear(12, 3)
    linear.weight.data = 2 * ROWS.repeat_interleave(4, 1)
    linear.bias.data = torch.zeros(3)
    network = nn.Sequential(nn.Flatten(), linear).requires_grad_(False).eval()

    def seen(brightness: Tensor) -> ModelOutputs:
        x = brightness.view(-1, 1, 3, 1) + 0.03 * torch.randn(len(brightness), 1, 3, 4, generator=random)
        return ModelOutputs(network, x, *logits_and_features(network, x))

    labels = torch.arange(180) % 3
    return World(
        network,
        training=seen(0.1 + 0.8 * ROWS[labels]),
        labels=labels,
        inliers=seen(0.1 + 0.8 * ROWS[labels[:60]]),
        outliers=seen(torch.full((40, 3), 0.37)),
    )
