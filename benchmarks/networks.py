"""Networks that several benchmarks ask; it imports models alone, because peers' processes pay for its imports."""

from typing import Any

from torch import nn

from trustml_cli.models import norm
from trustml_cli.models.blur import Pooling
from trustml_cli.models.cifar_cnn import CifarCnn
from trustml_cli.models.model import InputSpec, Normalization

FRESH: dict[str, Any] = {"checkpoint": None, "checkpoint_key": None, "checkpoint_prefix": None, "train": False}
"""A model without weights from a file."""


def cifar_cnn(inputs: InputSpec, normalization: Normalization) -> nn.Module:
    """`model=cifar_cnn` with random weights."""
    return CifarCnn(pooling=Pooling.plain, norm=norm.Norm.batch, normalization=normalization, **FRESH).build(inputs)
