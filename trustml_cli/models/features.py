"""What a network computes for images: its logits, its penultimate features, and the outputs of named layers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NO_OUTPUT_LAYER = "has no linear layer that makes its logits, so it has no features before them"
GRID = 2  # cells on each side of a feature map that are kept
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, kw_only=True)
class ModelOutputs:
    """What `network` computes for N examples, in one forward pass.

    `logits` have shape [N, K]; penultimate `features` [N, D] are the input of the last linear layer called, `head`;
    `layers` are the outputs of further layers by name, each [N, D_l] (see `as_vectors`).
    """

    network: nn.Module
    head: nn.Linear
    logits: Tensor
    features: Tensor
    layers: Mapping[str, Tensor]

    def only(self, names: Sequence[str]) -> "ModelOutputs":
        """The same with the layers called `names` alone, in this order."""
        return replace(self, layers={name: self.layers[name] for name in names})


def output_layer(network: nn.Module, x: Tensor) -> nn.Linear:
    """The linear layer that makes the logits of inputs x; ValueError unless it makes one for each."""
    with torch.no_grad(), linear_calls(network) as calls:
        logits = network(x)
    if not calls or last_before(logits, calls).layer.out_features != logits.shape[1]:
        raise ValueError(NO_OUTPUT_LAYER)
    return last_before(logits, calls).layer


def check_features(network: nn.Module, x: Tensor) -> None:
    """Raise ValueError unless the `output_layer` is given one row, or the tokens, of each of the inputs x."""
    output_layer(network, x)
    with torch.no_grad(), linear_calls(network) as calls:
        given = last_before(network(x), calls).given
    if len(given) != len(x):
        raise ValueError(
            f"gives its last linear layer {list(given.shape)} for {len(x)} images, so it has no features of each "
            "image; let it call that layer on [images, features]"
        )


def is_linear_head(network: nn.Module, x: Tensor) -> bool:
    """Whether the logits of x are W·h + b, with the weights of the last linear layer called and its input h."""
    with torch.no_grad():
        outputs = model_outputs(network, x)
    if outputs.features.shape != (len(x), outputs.head.in_features):  # it is called on tokens
        return False
    recomputed = logits_from(outputs.head, outputs.features)
    return torch.allclose(recomputed, outputs.logits.cpu().double(), rtol=1e-3, atol=1e-4)


def logits_from(head: nn.Linear, features: Tensor) -> Tensor:
    """The logits [N, K] of penultimate features [N, D] by the output layer `head`, float64 on the CPU."""
    logits = features.cpu().double() @ head.weight.detach().cpu().double().T
    return logits if head.bias is None else logits + head.bias.detach().cpu().double()


def model_outputs(network: nn.Module, x: Tensor, layers: Sequence[str] = ()) -> ModelOutputs:
    """The outputs of `network` for x, among them those of the modules called `layers`, in one forward pass.

    The network must have an `output_layer`. Of a module that is called several times, the last output counts.
    """
    kept: dict[str, Tensor] = {}
    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(keeping(kept, name)) for name in layers]
    try:
        with linear_calls(network) as calls:
            logits = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    last = last_before(logits, calls)
    found = {name: kept[name].float() for name in layers}
    return ModelOutputs(
        network=network, head=last.layer, logits=logits.float(), features=last.given.flatten(1).float(), layers=found
    )


def joined(parts: Sequence[ModelOutputs]) -> ModelOutputs:
    """The outputs of one network for the examples of all `parts`."""
    return replace(
        parts[0],
        logits=torch.cat([part.logits for part in parts]),
        features=torch.cat([part.features for part in parts]),
        layers={name: torch.cat([part.layers[name] for part in parts]) for name in parts[0].layers},
    )


def keeping(kept: dict[str, Tensor], name: str) -> Any:
    """A forward hook that keeps a module's output as vectors under `name`."""

    def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        kept[name] = as_vectors(output, isinstance(module, nn.Conv1d))

    return hook


def as_vectors(output: Tensor, signal: bool = False) -> Tensor:
    """A layer's output [N, …] as [N, D].

    Feature maps [N, C, H, W] are averaged over the cells of a grid of at most GRID × GRID, tokens [N, T, D] over T;
    `signal` says that they are feature maps [N, C, L], averaged over at most GRID cells.
    """
    if output.dim() == 4:
        height, width = output.shape[2:]
        return functional.adaptive_avg_pool2d(output, (min(GRID, height), min(GRID, width))).flatten(1)
    if output.dim() == 3 and signal:
        return functional.adaptive_avg_pool1d(output, min(GRID, output.shape[2])).flatten(1)
    if output.dim() == 3:
        return output.mean(1)
    return output.flatten(1).clone()  # a following layer may work in place


def named_outputs(network: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """The modules inside that return one row for each example of x, by name, in the order of their first call."""
    found: dict[str, nn.Module] = {}

    def noting(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and len(output) == len(x):
                found[name] = module

        return hook

    hooks = [module.register_forward_hook(noting(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def choose_layers(network: nn.Module, x: Tensor, wanted: Sequence[str]) -> list[str]:
    """The names of the modules that `wanted` means: names, or one number.

    A number takes that many convolutions and linear layers, evenly spread over their order of calls with the last one
    among them, or all where there are fewer. Raises ValueError for a name without an output for x, and for 0.
    """
    outputs = named_outputs(network, x)
    known = [name for name, module in outputs.items() if isinstance(module, LAYERS)]
    if len(wanted) == 1 and wanted[0].isdecimal():
        if not int(wanted[0]):
            raise ValueError(f"layers: must be at least 1, got {wanted[0]}")
        if not known:
            raise ValueError(
                f"layers: no convolution or linear layer gives [images, …]; choose from {', '.join(outputs)}"
            )
        count = min(int(wanted[0]), len(known))
        return [known[(place + 1) * len(known) // count - 1] for place in range(count)]
    for name in wanted:
        if name not in outputs:
            raise ValueError(f"layers: no layer {name!r}; there are {', '.join(known)}")
    if not wanted:
        raise ValueError("layers: needs at least one name, or a number of layers")
    return list(dict.fromkeys(wanted))


@dataclass(frozen=True)
class LinearCall:
    """A call of a linear layer: its input [N, …, D] and its output [N, …, K]."""

    layer: nn.Linear
    given: Tensor
    made: Tensor


@contextmanager
def linear_calls(network: nn.Module) -> Iterator[list[LinearCall]]:
    """The calls of a network's linear layers, in their order while this lasts."""
    calls: list[LinearCall] = []

    def keep(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], made: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        calls.append(LinearCall(layer, arguments[0] if arguments else named["input"], made))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in layers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def last_before(logits: Tensor, calls: Sequence[LinearCall]) -> LinearCall:
    """The last call that made the logits; the very last one, where what follows changes them.

    A network may call an auxiliary output layer after the one whose logits are taken.
    """
    same = (each for each in reversed(calls) if torch.equal(each.made.to(logits), logits))
    return next(same, calls[-1])
