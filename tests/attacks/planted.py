"""Networks with a fault that is known: what the checks must find."""

import torch
from torch import Tensor, nn


class Decoys(nn.Module):
    """Class 0 is read of grey images of 2×2 pixels; class 1 wins where they are darker than 0.3.

    Eight more classes come nearer where images become brighter, and never win below 0.86: the cross-entropy, which adds
    up all wrong classes, leads to them, while the likeliest wrong class of a grey image is 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        up = x.flatten(1).mean(1) - 0.5
        decoys = [(3 * up - 1.1) for _ in range(8)]
        return torch.stack([torch.zeros_like(up), -1 - 5 * up, *decoys], 1)


class Scaled(nn.Module):
    """Logits times a factor: the same answers, with any confidence."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.factor


class Stepped(nn.Module):
    """Logits in whole numbers: the same answers but for ties, and no slope."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return (8 * logits).round()


class Jittered(nn.Module):
    """A network that is shown each image with noise of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.3 * torch.randn_like(x))
        return logits
