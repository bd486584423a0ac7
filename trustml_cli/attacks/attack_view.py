"""Whom attacks ask over and over: a copy of the network that costs less, where it is the same; else the network.

A copy is made by following the forward pass once, and much can be lost on the way: whatever is random or counted in
Python, what hooks do, what is not to be followed by a gradient. So no copy is believed: it is compared with the network
on images of the run, and on what the attack makes of them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trustml_cli.attacks.geometry import lengths
from trustml_cli.attacks.losses import log_odds, loss_gradient
from trustml_cli.models.inference import NoGradient
from trustml_cli.models.thin_conv import ThinConv2d, is_thin
from trustml_cli.system.hardware import BatchSplitter

IMAGES = 32  # that a copy is compared on before the attack
SAME_LOGITS = 2e-3  # of how far the logits spread: more than rounding changes
SAME_GRADIENT = 0.03  # of its length: a few ReLUs may round to the other side of their kink
KINKS = 0.1  # the share of images at which more of them may
PAIRS: dict[type, type] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}


@dataclass(frozen=True)
class AttackView:
    """The network that attacks ask, and which that is, in words."""

    network: nn.Module
    which: str


def choose_attack_view(
    model: nn.Module, x: Tensor, y: Tensor, compiled: Callable[[nn.Module], nn.Module] = lambda network: network
) -> AttackView:
    """The stand-in for `model`, `compiled`, where it is the same network on images x of classes y; else `model`.

    It is the same where logits and gradients by the image are, but for rounding, and where the network itself answers
    the same when it is asked twice.
    """
    if any(layer.training for layer in model.modules()):
        return AttackView(model, "the network itself: it is in training mode")
    copy = compiled(folded_copy(model))
    if copy is model:
        return AttackView(model, "the network itself: a copy would cost no less")
    x, y = x[:IMAGES], y[:IMAGES]
    try:
        first, second = logits_and_gradients(model, x, y), logits_and_gradients(model, x, y)
    except NoGradient:
        return AttackView(model, "the network itself: it gives no gradient")
    if not same_logits_and_gradients(first, second):
        return AttackView(model, "the network itself: it answers differently each time")
    try:
        same = same_logits_and_gradients(first, logits_and_gradients(copy, x, y))
    except Exception:  # what was lost on the way may be anything
        same = False
    if not same:
        return AttackView(model, f"the network itself: the copy differs on {len(x)} images")
    return AttackView(
        copy, f"a copy with folded layers: it says the same of {len(x)} images, and has the same gradients"
    )


def logits_and_gradients(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of images x and the gradients of their log-odds, from one question."""

    def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits, _, gradient = loss_gradient(model, x, partial(log_odds, y=y, target=None))
        return logits, gradient

    logits, gradients = zip(*BatchSplitter().over([(x, y)], both), strict=True)
    return torch.cat(logits), torch.cat(gradients)


def same_logits_and_gradients(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Whether logits and gradients are the same but for rounding."""
    (logits, gradient), (other_logits, other_gradient) = one, other
    apart = lengths(gradient - other_gradient) > SAME_GRADIENT * lengths(gradient)
    return same_logits(logits, other_logits) and float(apart.double().mean()) <= KINKS


def same_logits(one: Tensor, other: Tensor) -> bool:
    """Whether logits [N, K] are the same but for rounding; images without an answer must have none in both."""
    if not torch.equal(one.isfinite(), other.isfinite()):
        return False
    one, other = one.nan_to_num(0.0, 0.0, 0.0), other.nan_to_num(0.0, 0.0, 0.0)
    spread = (one - one.mean(1, keepdim=True)).abs().amax()
    return bool((one - other).abs().amax() <= SAME_LOGITS * spread)


class Layers(fx.Tracer):
    """Follows a forward pass down to the layers that hold no others."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def folded_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` whose gradient by the image costs less, and which should say the same but for rounding.

    Each BatchNorm is folded into the convolution before it; frozen convolutions of few channels become thin ones. It is
    `model` itself where that would change nothing, where it is in training mode and follows its batch, or where its
    forward pass depends on what it is given and cannot be followed. Layers that are called more than once, or that have
    hooks, stay as they are.
    """
    layers = list(model.modules())
    if any(layer.training for layer in layers) or not any(
        isinstance(layer, _BatchNorm) or is_thin(layer) for layer in layers
    ):
        return model
    try:
        graph = Layers().trace(model)
    except Exception:  # a forward pass may do anything with what it is given, and raise anything at a stand-in for it
        return model
    copy = fx.GraphModule(model, graph)
    fold(copy)
    for name, layer in list(copy.named_modules()):
        if is_thin(layer) and not has_hooks(layer):
            copy.set_submodule(name, ThinConv2d(layer))
    return copy.eval()


def fold(copy: fx.GraphModule) -> None:
    """Fold every BatchNorm into the convolution that alone feeds it, where both are called once."""
    called = Counter(node.target for node in copy.graph.nodes if node.op == "call_module")

    def layer(node: object) -> nn.Module | None:
        """The layer that is called there, if it is called nowhere else and does nothing beside."""
        if not (isinstance(node, fx.Node) and node.op == "call_module" and called[node.target] == 1):
            return None
        found = copy.get_submodule(str(node.target))
        return None if has_hooks(found) else found

    for node in list(copy.graph.nodes):
        before = node.args[0] if node.args else None
        norm, convolution = layer(node), layer(before)
        if not (isinstance(norm, _BatchNorm) and isinstance(convolution, _ConvNd) and isinstance(before, fx.Node)):
            continue
        follows = PAIRS.get(type(convolution)) is type(norm) and len(before.users) == 1
        if follows and norm.running_mean is not None:
            copy.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            copy.graph.erase_node(node)
    copy.delete_all_unused_submodules()
    copy.recompile()


def has_hooks(layer: nn.Module) -> bool:
    """Whether something is called beside the layer's own forward pass."""
    return any(hooks for name, hooks in vars(layer).items() if name.endswith("_hooks") and "state_dict" not in name)
