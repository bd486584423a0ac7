"""Penultimate features of a network."""

from torch import Tensor, nn


def last_linear(network: nn.Module) -> nn.Linear:
    """The last linear layer, in the order in which the layers were defined; ValueError where there is none."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError("has no linear layer before its logits, so there are no penultimate features to look at")
    return layers[-1]


def logits_and_features(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and penultimate features [N, D], the input of the last linear layer, in one forward pass."""
    inputs: list[Tensor] = []
    hook = last_linear(network).register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        logits = network(x)
    finally:
        hook.remove()
    return logits, inputs[-1].flatten(1)
