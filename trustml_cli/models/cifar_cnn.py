"""A small convolutional network for CIFAR-10 that trains in minutes on a CPU."""

from dataclasses import dataclass

from torch import nn

from trustml_cli.models.blur import BlurPool, Pooling
from trustml_cli.models.model import InputSpec, Model, require_images
from trustml_cli.models.norm import Norm


@dataclass(frozen=True, kw_only=True)
class CifarCnn(Model):
    """Three convolutions and one hidden linear layer, all with a `norm`; for images of at least 8×8.

    The convolutions are 5×5 with 32, 32 and 64 channels, each with the norm, ReLU and 2×2 average pooling. A linear
    layer of width 64 with the norm and ReLU and the output layer follow. `pooling` may replace the average pooling.
    """

    pooling: Pooling
    norm: Norm

    def network(self, inputs: InputSpec) -> nn.Sequential:
        channels, height, width = require_images(inputs)
        if min(height, width) < 8:
            raise ValueError(f"needs images of at least 8×8, got {height}×{width}")
        layers: list[nn.Module] = []
        for out_channels in (32, 32, 64):
            layers += [
                nn.Conv2d(channels, out_channels, kernel_size=5, padding=2, bias=False),
                self.norm.layer(out_channels),
                nn.ReLU(),
                BlurPool(out_channels) if self.pooling is Pooling.blur else nn.AvgPool2d(2),
            ]
            channels = out_channels
            rest = self.pooling is Pooling.blur  # an odd row or column is kept
            height, width = (height + rest) // 2, (width + rest) // 2
        return nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(64 * height * width, 64, bias=False),
            self.norm.layer(64, images=False),
            nn.ReLU(),
            nn.Linear(64, inputs.classes),
        )
