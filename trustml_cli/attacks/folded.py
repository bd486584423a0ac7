"""A network that says the same for less work, for attacks to ask over and over."""

from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm


class Layers(fx.Tracer):
    """Follows a forward pass down to the layers that hold no others."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def folded(model: nn.Module) -> nn.Module:
    """A copy of `model` with each BatchNorm folded into the convolution before it; it says the same but for rounding.

    `model` itself where there is none to fold, where it is in training mode and follows its batch, or where its forward
    pass depends on what it is given and cannot be followed.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    if not norms or model.training or any(layer.training for layer in norms):
        return model
    try:
        graph = Layers().trace(model)
    except (
        Exception
    ):  # a forward pass may do anything with what it is given, and raise anything where that is a stand-in
        return model
    return fuse(fx.GraphModule(model, graph), no_trace=True).eval()
