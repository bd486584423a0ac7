"""A small convolutional network with tanh and without BatchNorm, for training with differential privacy."""

from dataclasses import dataclass

import torch
from torch import nn

from trustml_cli.models.model import InputSpec, Model, require_images


@dataclass(frozen=True, kw_only=True)
class TanhCnn(Model):
    """Two convolutions with tanh and max pooling, then a hidden layer of 32.

    Bounded activations keep gradients small, so that less of them is clipped (Papernot, Thakurta, Song, Chien and
    Erlingsson 2021, arXiv 2007.14191, whose network for MNIST this is). Images below 14×14, of 6×6 at least, get 3×3
    convolutions in place of 8×8 and 4×4 ones.
    """

    def network(self, inputs: InputSpec) -> nn.Sequential:
        channels, height, width = require_images(inputs)
        side = min(height, width)
        if side < 6:
            raise ValueError(f"needs images of at least 6×6, got {height}×{width}")
        first = nn.Conv2d(channels, 16, 8, stride=2, padding=3) if side >= 14 else nn.Conv2d(channels, 16, 3, padding=1)
        second = nn.Conv2d(16, 32, 4 if side >= 14 else 3, stride=2)
        layers = [first, nn.Tanh(), nn.MaxPool2d(2, stride=1), second, nn.Tanh(), nn.MaxPool2d(2, stride=1)]
        features = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            values = features(torch.zeros(1, *inputs.shape)).shape[1]
        return nn.Sequential(*features, nn.Linear(values, 32), nn.Tanh(), nn.Linear(32, inputs.classes))
