"""Normalisation layers between the convolutions of a network."""

from enum import Enum

from torch import nn


class Norm(Enum):
    """What the activations are normalised over."""

    batch = "batch"
    """Over the batch for each channel (Ioffe and Szegedy 2015, arXiv 1502.03167)."""
    group = "group"
    """For each example over groups of 16 channels (Wu and He 2018, arXiv 1803.08494): no example changes another's."""

    def layer(self, channels: int, images: bool = True) -> nn.Module:
        """The layer for [N, channels, H, W], or [N, channels] unless `images`."""
        if self is Norm.group:
            return nn.GroupNorm(max(1, channels // 16), channels)
        return nn.BatchNorm2d(channels) if images else nn.BatchNorm1d(channels)
