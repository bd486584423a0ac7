"""Penultimate features of a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

NO_OUTPUT_LAYER = "has no linear layer that makes its logits, so it has no features before them"


def output_layer(network: nn.Module, x: Tensor) -> nn.Linear:
    """The linear layer that is called last for inputs x; ValueError unless it makes a value for each logit."""
    with torch.no_grad(), linear_calls(network) as calls:
        logits = network(x)
    if not calls or calls[-1][0].out_features != logits.shape[1]:
        raise ValueError(NO_OUTPUT_LAYER)
    return calls[-1][0]


def logits_and_features(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and penultimate features [N, D], the input of the last linear layer called, in one forward pass."""
    with linear_calls(network) as calls:
        logits = network(x)
    return logits, calls[-1][1].flatten(1)


@contextmanager
def linear_calls(network: nn.Module) -> Iterator[list[tuple[nn.Linear, Tensor]]]:
    """The linear layers of a network with their inputs, in the order of their calls while this lasts."""
    calls: list[tuple[nn.Linear, Tensor]] = []

    def keep(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        calls.append((layer, arguments[0]))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
