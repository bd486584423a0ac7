"""A convolutional network without pooling for MNIST, with real or binary activations and weights."""

from dataclasses import dataclass

from torch import nn

from trustml_cli.models.binary import Activation, BinarizableModel
from trustml_cli.models.blur import BlurPool, Pooling
from trustml_cli.models.model import InputSpec, require_images


@dataclass(frozen=True, kw_only=True)
class MnistCnn(BinarizableModel):
    """Five convolutions and one hidden layer.

    The convolutions are 3×3 with 32, 64, 128, 128 and 128 channels, the last four with stride 2. A linear layer of
    width 100 and the output layer follow. `activation` follows all layers but the last. With `pooling` by blur, stride
    1 and a `BlurPool` after the activation replace stride 2.
    """

    pooling: Pooling

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling is Pooling.blur and (self.activation is Activation.sign or self.binary_weights):
            raise ValueError("pooling: blur turns signs into values other than −1 and 1; use plain")

    def network(self, inputs: InputSpec) -> nn.Sequential:
        channels, height, width = require_images(inputs)
        layers: list[nn.Module] = []
        for out_channels, stride in ((32, 1), (64, 2), (128, 2), (128, 2), (128, 2)):
            blur = stride == 2 and self.pooling is Pooling.blur
            layers += self.convolution(channels, out_channels, 1 if blur else stride)
            layers += [BlurPool(out_channels)] if blur else []
            channels = out_channels
            height, width = -(-height // stride), -(-width // stride)  # padding 1 rounds halves up
        hidden = [*self.linear(128 * height * width, 100), self.activate()]
        return nn.Sequential(*layers, nn.Flatten(), *hidden, *self.linear(100, inputs.classes))
