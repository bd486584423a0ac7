"""What an attacker who knows the defence asks in place of a randomised network, or of one without a useful gradient.

Expectation over transformation: Athalye, Engstrom, Ilyas and Kwok 2018, arXiv 1707.07397. Backward pass differentiable
approximation (BPDA): Athalye, Carlini and Wagner 2018, arXiv 1802.00420.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trustml_cli.attacks.attack_view import AttackView


class Backward(Enum):
    """How attacks differentiate a network; its logits are the same."""

    exact = "exact"
    """As torch does."""
    identity = "identity"
    """Rounding (round, floor, ceil, trunc, sign, also in place) passes the gradient on as if it were not there."""
    stand_in = "stand_in"
    """A layer with a method `stand_in` passes on the gradient of what that returns for the layer's input."""


STEPS: frozenset[Callable[..., Any]] = frozenset(
    getattr(place, name + ending)
    for place in (torch, Tensor)
    for name in ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn")
    for ending in ("", "_")
    if hasattr(place, name + ending)
)


def adaptive_view(model: nn.Module, draws: int, backward: Backward) -> AttackView | None:
    """The network to ask in place of `model`: the mean of `draws` answers, differentiated by `backward`.

    None if that is the model itself. Raises ValueError if no layer has a `stand_in`.
    """
    asked, parts = model, []
    if backward is Backward.stand_in:
        if not any(hasattr(layer, "stand_in") for layer in model.modules()):
            raise ValueError("backward: no layer of this network has a method stand_in; add it, or take exact")
        asked, parts = StandIn(asked), ["with the gradient of its layers' stand_in"]
    elif backward is Backward.identity:
        asked, parts = RoundingIgnored(asked), ["with the gradient of a network that does not round"]
    if draws > 1:
        asked, parts = Expectation(asked, draws), [f"by the mean of {draws} answers", *parts]
    if asked is model:
        return None
    return AttackView(asked.eval(), f"the network itself, {' and '.join(parts)}", draws, replaceable=False)


class Expectation(nn.Module):
    """The mean logits of `draws` passes of a randomised network, an estimate of their expectation.

    Its gradient is the mean of as many gradients.
    """

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.model(x)
        for _ in range(self.draws - 1):
            total = total + self.model(x)
        return total / self.draws


class RoundingIgnored(nn.Module):
    """A network whose rounding passes the gradient on unchanged."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with PassThrough():
            logits: Tensor = self.model(x)
        return logits


class PassThrough(TorchFunctionMode):
    """While active, the functions in `STEPS` have the gradient of the identity."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func not in STEPS:
            return func(*args, **named)
        given, *further = args or [named.pop("input")]
        rounded = func(given.detach().clone(), *further, **named)
        if func.__name__.endswith("_"):  # in place
            return given.copy_(with_gradient_of(rounded, given.clone()))
        return with_gradient_of(rounded, given)


class StandIn(nn.Module):
    """A network whose layers with a method `stand_in` pass on the gradient of what it returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        def replaced(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return with_gradient_of(output, layer.stand_in(*inputs))

        hooks = [layer.register_forward_hook(replaced) for layer in self.model.modules() if hasattr(layer, "stand_in")]
        try:
            logits: Tensor = self.model(x)
        finally:
            for hook in hooks:
                hook.remove()
        return logits


def with_gradient_of(value: Tensor, source: Tensor) -> Tensor:
    """`value`, with the gradient of `source`, of the same shape."""
    return value.detach() + (source - source.detach())
