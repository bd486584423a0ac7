"""A convolutional network without normalisation layers or pooling, sized for MNIST."""

from dataclasses import dataclass

from torch import nn

from trustml_cli.models.model import Inputs, Model, require_images


@dataclass(frozen=True, kw_only=True)
class MnistCnn(Model):
    """Five convolutions and one hidden layer.

    The convolutions are 3×3 with 32, 64, 128, 128 and 128 channels and ReLU, the last four with stride 2; then come a
    linear layer of 100 with ReLU, and the classes.
    """

    def network(self, inputs: Inputs) -> nn.Sequential:
        channels, height, width = require_images(inputs)
        layers: list[nn.Module] = []
        for out_channels, stride in ((32, 1), (64, 2), (128, 2), (128, 2), (128, 2)):
            layers += [nn.Conv2d(channels, out_channels, kernel_size=3, stride=stride, padding=1), nn.ReLU()]
            channels = out_channels
            height, width = -(-height // stride), -(-width // stride)  # padding 1 rounds halves up
        return nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(128 * height * width, 100), nn.ReLU(), nn.Linear(100, inputs.classes)
        )
