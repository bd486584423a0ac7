"""A network that says the same for less work, for attacks to ask over and over."""

from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm

from trustml_cli.attacks.thin import ThinConv2d, is_thin


class Layers(fx.Tracer):
    """Follows a forward pass down to the layers that hold no others."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def stand_in(model: nn.Module) -> nn.Module:
    """A copy of `model` that says the same but for rounding, and whose gradient by the image costs less.

    Each BatchNorm is folded into the convolution before it; frozen convolutions of few channels become thin ones. It is
    `model` itself where that would change nothing, where it is in training mode and follows its batch, or where its
    forward pass depends on what it is given and cannot be followed.
    """
    layers = list(model.modules())
    folds = any(isinstance(layer, _BatchNorm) for layer in layers)
    if any(layer.training for layer in layers) or not (folds or any(map(is_thin, layers))):
        return model
    try:
        graph = Layers().trace(model)
    except Exception:  # a forward pass may do anything with what it is given, and raise anything at a stand-in for it
        return model
    copy: nn.Module = fx.GraphModule(model, graph)
    copy = fuse(copy, no_trace=True) if folds else copy
    for name, layer in list(copy.named_modules()):
        if is_thin(layer):
            copy.set_submodule(name, ThinConv2d(layer))
    return copy.eval()
