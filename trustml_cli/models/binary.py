"""Binary networks: sign activations and sign weights, trained with the straight-through estimator.

Courbariaux, Hubara, Soudry, El-Yaniv and Bengio 2016, arXiv 1602.02830; the straight-through estimator is Hinton's,
according to Bengio, Léonard and Courville 2013, arXiv 1308.3432.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.model import Model


class SignFunction(torch.autograd.Function):
    """+1 where x ≥ 0, −1 elsewhere; its derivative is defined as 1 where |x| ≤ 1, and 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)  # type: ignore[no-any-return]


def sign(x: Tensor) -> Tensor:
    """The elementwise sign of x (+1 or −1), with the straight-through gradient."""
    return SignFunction.apply(x)  # type: ignore[no-any-return]


class Sign(nn.Module):
    """`sign` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return sign(x)


class BinaryLinear(nn.Linear):
    """A linear layer that uses the signs of its weights; in training the latent weights are clipped to [−1, 1]."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, sign(clipped(self)), self.bias)


class BinaryConv2d(nn.Conv2d):
    """A convolution that uses the signs of its weights; in training the latent weights are clipped to [−1, 1]."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, sign(clipped(self)), self.bias)  # type: ignore[no-any-return]


def clipped(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """The latent weights of a layer; in training they are first clipped to [−1, 1], where the gradient is not 0."""
    if layer.training:
        with torch.no_grad():
            layer.weight.clamp_(-1, 1)
    return layer.weight


class Activation(Enum):
    """The activation function of the hidden layers."""

    relu = "relu"
    sign = "sign"
    """+1 or −1, with the straight-through gradient."""


@dataclass(frozen=True, kw_only=True)
class BinarizableModel(Model):
    """A model with a choice of the hidden `activation`, and optionally binary weights.

    With `binary_weights`, BatchNorm follows every layer: sums of many ±1 are far outside [−1, 1], where the gradient
    of the sign is 0.
    """

    activation: Activation
    binary_weights: bool

    def convolution(self, channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        """A hidden 3×3 convolution with padding 1, its BatchNorm if the weights are binary, and its activation."""
        kind = BinaryConv2d if self.binary_weights else nn.Conv2d
        return [
            kind(channels, out_channels, kernel_size=3, stride=stride, padding=1),
            *([nn.BatchNorm2d(out_channels)] if self.binary_weights else []),
            self.activate(),
        ]

    def linear(self, width: int, out_width: int) -> list[nn.Module]:
        """A linear layer, with BatchNorm if the weights are binary, without activation."""
        kind = BinaryLinear if self.binary_weights else nn.Linear
        return [kind(width, out_width), *([nn.BatchNorm1d(out_width)] if self.binary_weights else [])]

    def activate(self) -> nn.Module:
        """A layer that applies the activation."""
        return Sign() if self.activation is Activation.sign else nn.ReLU()
