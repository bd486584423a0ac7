"""The base class of all models, the specification of a network's inputs, and the normalisation of pixels."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trustml_cli.models.classifier import Classifier, NoLogits, adapt
from trustml_cli.system.errors import prefix_errors
from trustml_cli.system.hardware import is_out_of_memory

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalization(Enum):
    """The normalisation of pixels by the first layer."""

    none = "none"
    """No normalisation: pixels in [0, 1]."""
    dataset = "dataset"
    """Zero mean and unit standard deviation for each channel of the training images."""
    imagenet = "imagenet"
    """ImageNet's mean and standard deviation, as torchvision's pretrained weights expect."""
    symmetric = "symmetric"
    """Pixels scaled to [−1, 1]."""


@dataclass(frozen=True)
class InputSpec:
    """Shape of one example, number of classes, mean and standard deviation of each channel, and names of classes."""

    shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    names: tuple[str, ...] = ()


class Normalize(nn.Module):
    """(x − mean) / std for each channel; x has shape [N, C, …]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        by_channel = (1, -1) + (1,) * (x.dim() - 2)
        return (x - self.mean.view(by_channel)) / self.std.view(by_channel)


@runtime_checkable
class DataDependentInit(Protocol):
    """A network whose buffers are initialized from training images before its weights are trained.

    The result is stored in buffers only, so that loading a state_dict restores it.
    """

    def initialize_from(self, x: Tensor) -> None:
        """Initialize from normalised training images x [N, C, H, W]; called once, without gradients."""


class FixedFirst(nn.Sequential):
    """Fixed `features`, which have no weights and are the same in training, followed by a trained `head`.

    Training computes the features of each example once.
    """

    features: nn.Module
    head: nn.Module

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__(OrderedDict(features=features, head=head))


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """The configuration of a network. Subclasses declare their keys as fields and implement `network`.

    `checkpoint` is a file of weights, in safetensors or a weights-only .pt; `checkpoint_key` and `checkpoint_prefix`
    say which entry and which names of it are read, where not all are the network's. With a checkpoint the network is
    not trained unless `train`, which starts training from these weights.
    """

    normalization: Normalization
    checkpoint: Path | None
    checkpoint_key: str | None
    checkpoint_prefix: str | None
    train: bool

    def __post_init__(self) -> None:
        if self.checkpoint is not None and not self.checkpoint.is_file():
            raise ValueError(f"checkpoint: no file {self.checkpoint}; give a .safetensors or weights-only .pt file")
        for name in ("checkpoint_key", "checkpoint_prefix"):
            if self.checkpoint is None and getattr(self, name) is not None:
                raise ValueError(f"{name}: says how a file is read; give model.checkpoint, too")
        if self.train and self.checkpoint is None:
            raise ValueError("train: continues from the weights of a checkpoint; give model.checkpoint, too")

    @property
    def trains(self) -> bool:
        """Whether the network is trained; otherwise its weights are those of a checkpoint, or published ones."""
        return self.checkpoint is None or self.train

    def fresh(self) -> "Model":
        """The same model without the weights of a checkpoint, to be trained.

        Raises `InputError` where that makes no sense, as for layers that stay frozen.
        """
        with prefix_errors("model"):
            return replace(self, checkpoint=None, checkpoint_key=None, checkpoint_prefix=None, train=False)

    @abstractmethod
    def network(self, inputs: InputSpec) -> nn.Module:
        """A network with random weights, from normalised inputs [N, *shape] to logits [N, classes]."""

    def build(self, inputs: InputSpec) -> Classifier:
        """The normalisation followed by `network`, as layers `normalize` and `network`, adapted to how it is used.

        Raises ValueError where it does not accept inputs of this shape or does not return one logit per class.
        """
        network = Classifier(OrderedDict(normalize=self.normalize(inputs), network=self.network(inputs)))
        network.cpu()  # parts of a trained network may be on a GPU
        network.classes = inputs.classes
        try:
            adapt(network, inputs.shape, self.trains)
        except NoLogits:
            raise
        except Exception as error:  # any other error of a layer means that the shapes do not fit
            if is_out_of_memory(error):
                raise
            raise ValueError(f"cannot take inputs of shape {shape_text(inputs.shape)} ({error})") from error
        return network

    def normalize(self, inputs: InputSpec) -> nn.Module:
        """The first layer, which normalises the pixels."""
        if self.normalization is Normalization.none:
            return nn.Identity()
        if self.normalization is Normalization.dataset:
            return Normalize(inputs.mean, inputs.std)
        if self.normalization is Normalization.symmetric:
            half = (0.5,) * inputs.shape[0]
            return Normalize(half, half)
        if inputs.shape[0] == 3:
            return Normalize(IMAGENET_MEAN, IMAGENET_STD)
        # one grey channel, which the network repeats as red, green and blue
        return Normalize((sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,))


def require_images(inputs: InputSpec) -> tuple[int, int, int]:
    """Channels, height and width of the inputs; raises ValueError for a table."""
    if len(inputs.shape) != 3:
        raise ValueError(f"needs images, but the data set holds rows of shape {shape_text(inputs.shape)}")
    channels, height, width = inputs.shape
    return channels, height, width


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as text, for example '3×32×32'."""
    return "×".join(map(str, shape))
