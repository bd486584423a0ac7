"""The network that attacks query: a faster copy of the model if it is equivalent, else the model itself.

The copy is made by tracing the forward pass with torch.fx. Tracing can lose Python-side randomness and counters, the
effects of hooks, and detached gradients. So every copy is compared with the model on images of the run, and on the
adversarial images.
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
from trustml_cli.models.rectified_pool import RectifiedPool, is_block_mean
from trustml_cli.models.thin_conv import ThinConv2d, is_thin
from trustml_cli.system.hardware import BatchSplitter

IMAGES = 32  # number of images on which a copy is compared before the attack
SAME_LOGITS = 2e-3  # tolerance for logits, relative to their spread; larger than rounding errors
SAME_GRADIENT = 0.03  # tolerance for gradients, relative to their L2 norm: rounding may switch a few ReLUs
KINKS = 0.1  # share of images whose gradients may differ by more
PAIRS: dict[type, type] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}


@dataclass(frozen=True)
class AttackView:
    """The network that attacks query, and a description of it.

    A query of it costs `passes` passes of the model. If it is `replaceable`, it must say the same as the model.
    """

    network: nn.Module
    which: str
    passes: int = 1
    replaceable: bool = True


def choose_attack_view(
    model: nn.Module, x: Tensor, y: Tensor, compiled: Callable[[nn.Module], nn.Module] = lambda network: network
) -> AttackView:
    """The copy of `model`, `compiled`, if it is equivalent on images x of classes y; else `model`.

    It is equivalent if logits and input gradients agree up to rounding. The model itself must also be deterministic.
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
    except Exception:  # a copy that lost something in tracing may raise anything
        same = False
    if not same:
        return AttackView(model, f"the network itself: the copy differs on {len(x)} images")
    return AttackView(
        copy, f"a copy with folded layers: it says the same of {len(x)} images, and has the same gradients"
    )


def logits_and_gradients(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of images x and the input gradients of their log-odds, from one forward and backward pass."""

    def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits, _, gradient = loss_gradient(model, x, partial(log_odds, y=y, target=None))
        return logits, gradient

    logits, gradients = zip(*BatchSplitter().over([(x, y)], both), strict=True)
    return torch.cat(logits), torch.cat(gradients)


def same_logits_and_gradients(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Whether logits and gradients agree up to rounding."""
    (logits, gradient), (other_logits, other_gradient) = one, other
    apart = lengths(gradient - other_gradient) > SAME_GRADIENT * lengths(gradient)
    return same_logits(logits, other_logits) and float(apart.double().mean()) <= KINKS


def same_logits(one: Tensor, other: Tensor) -> bool:
    """Whether logits [N, K] agree up to rounding; NaN and infinity must be at the same entries."""
    if not torch.equal(one.isfinite(), other.isfinite()):
        return False
    one, other = one.nan_to_num(0.0, 0.0, 0.0), other.nan_to_num(0.0, 0.0, 0.0)
    spread = (one - one.mean(1, keepdim=True)).abs().amax()
    return bool((one - other).abs().amax() <= SAME_LOGITS * spread)


class Layers(fx.Tracer):
    """A torch.fx tracer whose leaves are the modules without submodules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def folded_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` with cheaper input gradients and, up to rounding, the same logits.

    Each BatchNorm is folded into the convolution before it; frozen convolutions of few channels become `ThinConv2d`. A
    ReLU is joined with the average pooling after it, or takes the maxima of blocks instead of all values: the same.
    Returns `model` itself if that would change nothing, if any layer is in training mode, or if torch.fx cannot trace
    it (for example because of data-dependent control flow). Folding skips layers that are called more than once, and
    no layer with hooks is replaced.
    """
    layers = list(model.modules())
    if any(layer.training for layer in layers) or not any(
        isinstance(layer, _BatchNorm) or is_thin(layer) for layer in layers
    ):
        return model
    try:
        graph = Layers().trace(model)
    except Exception:  # a forward pass may raise any exception when called with torch.fx proxies
        return model
    copy = fx.GraphModule(model, graph)
    fold(copy)
    for name, layer in list(copy.named_modules()):
        if is_thin(layer) and not has_hooks(layer):
            copy.set_submodule(name, ThinConv2d(layer))
    return copy.eval()


def fold(copy: fx.GraphModule) -> None:
    """Fold every BatchNorm into the convolution before it, and every ReLU into the pooling after it.

    Only layers that are called once, and of the first two each of which alone uses the output of the one before.
    """
    called = Counter(node.target for node in copy.graph.nodes if node.op == "call_module")

    def layer(node: object) -> nn.Module | None:
        """The layer that `node` calls, if it is called only once and has no hooks; else None."""
        if not (isinstance(node, fx.Node) and node.op == "call_module" and called[node.target] == 1):
            return None
        found = copy.get_submodule(str(node.target))
        return None if has_hooks(found) else found

    for node in list(copy.graph.nodes):
        before = node.args[0] if node.args else None
        this, previous = layer(node), layer(before)
        if this is None or previous is None or not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        if isinstance(this, _BatchNorm) and PAIRS.get(type(previous)) is type(this) and this.running_mean is not None:
            assert isinstance(previous, _ConvNd)
            copy.set_submodule(str(before.target), fuse_conv_bn_eval(previous, this))
            node.replace_all_uses_with(before)
            copy.graph.erase_node(node)
        elif type(previous) is nn.ReLU and type(this) is nn.MaxPool2d and not this.return_indices:
            node.target, before.target = before.target, node.target
        elif type(previous) is nn.ReLU and is_block_mean(this):
            source = before.args[0]
            if isinstance(layer(source), _ConvNd) and isinstance(source, fx.Node) and len(source.users) == 1:
                copy.set_submodule(str(node.target), RectifiedPool(int(this.kernel_size)))  # type: ignore[arg-type]
                before.replace_all_uses_with(source)
                copy.graph.erase_node(before)
    copy.delete_all_unused_submodules()
    copy.recompile()


def has_hooks(layer: nn.Module) -> bool:
    """Whether the layer has forward or backward hooks."""
    return any(hooks for name, hooks in vars(layer).items() if name.endswith("_hooks") and "state_dict" not in name)
