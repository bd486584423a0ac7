"""What a network must know of a data set to be built for it."""

import torch

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.models.model import InputSpec

SAMPLE = 50_000  # training images from which channel mean and standard deviation are estimated
ROUNDING = 1e-7  # largest deviation of a constant channel, relative to its root mean square


def input_spec(data: Dataset) -> InputSpec:
    """Input shape, number and names of classes, and channel mean and standard deviation of `data`."""
    mean, std = channel_statistics(data.train)
    return InputSpec(data.shape, len(data.classes), mean, std, data.classes)


def channel_statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over up to `SAMPLE` random training images, in pixel units."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    count, total, squares = 0, torch.zeros(train.shape[0]).double(), torch.zeros(train.shape[0]).double()
    for x, _ in batches(train, 1000, torch.device("cpu"), order.sort().values):
        by_channel = x.transpose(0, 1).flatten(1).double()
        count += by_channel.shape[1]
        total += by_channel.sum(1)
        squares += by_channel.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > ROUNDING * (squares / count).sqrt(), std, 1.0)  # a constant channel is not scaled
    return tuple(mean.tolist()), tuple(std.tolist())
