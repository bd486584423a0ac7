"""Three kinds of 1×3×4 images, a linear network that knows them, and images that are none of the three."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.models.features import ModelOutputs, model_outputs
from trustml_cli.ood.detector import Detector, FittedState, Fitting

ROWS = torch.eye(3)  # kind k has its k-th row bright


@dataclass
class World:
    network: nn.Module
    training: Tensor
    labels: Tensor
    validation: Tensor
    inliers: Tensor
    outliers: Tensor

    def outputs(self, x: Tensor, layers: Sequence[str] = ()) -> ModelOutputs:
        return model_outputs(self.network, x, layers)

    def fit(self, detector: Detector) -> FittedState:
        layers = detector.layers_of(self.network, self.training)
        training, validation = (
            Fitting(self.outputs(x, layers), self.labels[: len(x)]) for x in (self.training, self.validation)
        )
        return detector.fit(training, validation)

    def score(self, detector: Detector, x: Tensor, learned: FittedState) -> Tensor:
        return detector.score(x, self.outputs(x, detector.layers_of(self.network, x)), learned)


@pytest.fixture(scope="session")
def world() -> World:
    random = torch.Generator().manual_seed(0)
    same, linear = nn.Linear(12, 12, bias=False), nn.Linear(12, 3)
    same.weight.data, linear.weight.data = torch.eye(12), 2 * ROWS.repeat_interleave(4, 1)
    linear.bias.data = torch.zeros(3)
    network = nn.Sequential(nn.Flatten(), same, linear).requires_grad_(False).eval()

    def noisy(x: Tensor, std: float = 0.03) -> Tensor:
        return x + std * torch.randn(x.shape, generator=random)

    labels = torch.arange(180) % 3
    rows = (0.1 + 0.8 * ROWS[labels]).view(-1, 1, 3, 1).expand(-1, 1, 3, 4)
    between = torch.tensor([0.4, 0.4, 0.1]).view(3, 1) + 0.17 * torch.tensor([-1.0, 1, -1, 1])  # two rows, striped
    return World(
        network,
        training=noisy(rows),
        labels=labels,
        validation=noisy(rows[:60]),
        inliers=noisy(rows[:60]),
        outliers=noisy(between.expand(40, 1, 3, 4), 0.003),
    )
