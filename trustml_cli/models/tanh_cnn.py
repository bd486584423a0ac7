"""A small convolutional network with tanh and without BatchNorm, for training with differential privacy."""

from dataclasses import dataclass

from torch import nn

from trustml_cli.models.model import InputSpec, Model, require_images


@dataclass(frozen=True, kw_only=True)
class TanhCnn(Model):
    """Two convolutions with tanh and max pooling, then a hidden layer of 32, for images of at least 14×14.

    Bounded activations keep gradients small, so that less of them is clipped (Papernot, Thakurta, Song, Chien and
    Erlingsson 2021, arXiv 2007.14191, whose network for MNIST this is).
    """

    def network(self, inputs: InputSpec) -> nn.Sequential:
        channels, height, width = require_images(inputs)
        if min(height, width) < 14:
            raise ValueError(f"needs images of at least 14×14, got {height}×{width}; take model=mlp")
        values = 32 * after_layers(height) * after_layers(width)
        layers: list[nn.Module] = [
            *(nn.Conv2d(channels, 16, kernel_size=8, stride=2, padding=3), nn.Tanh(), nn.MaxPool2d(2, stride=1)),
            *(nn.Conv2d(16, 32, kernel_size=4, stride=2), nn.Tanh(), nn.MaxPool2d(2, stride=1), nn.Flatten()),
        ]
        return nn.Sequential(*layers, nn.Linear(values, 32), nn.Tanh(), nn.Linear(32, inputs.classes))


def after_layers(side: int) -> int:
    """Height or width after both convolutions and poolings."""
    side = (side + 6 - 8) // 2 + 1 - 1
    return (side - 4) // 2 + 1 - 1
