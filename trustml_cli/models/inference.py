"""Evaluation of a network by attacks: its logits, and gradients by the image.

All attacks and checks use these functions, so that special cases are handled in one place: logits in any precision,
logits and gradients that are NaN or infinite, and networks without gradients.
"""

from math import inf

import torch
from torch import Tensor, nn

from trustml_cli.system.hardware import is_out_of_memory

NO_GRADIENT = "needs gradients by the image, and this network gives none"


class NoGradient(ValueError):
    """The network has no gradient by the image: it is constant, quantised, or detaches its input."""

    def __init__(self) -> None:
        super().__init__(f"{NO_GRADIENT}; use one without, such as square")


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """The logits [N, K] of images x, in float32 whatever the network's precision.

    A prediction is valid if its largest logit is finite; other logits may be minus infinity. Otherwise (a logit is NaN
    or +infinity, or all are −infinity) all logits of the image are NaN in the result, and every comparison with them is
    false. Raises ValueError where the network returns anything but a tensor [N, K].
    """
    logits: object = model(x)
    if not (isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(x)):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"a network must return logits [images, classes], got {shape} for {len(x)} images")
    logits = logits.float()
    return logits.where(logits.detach().amax(1, keepdim=True).isfinite(), torch.nan)


def predicted_classes(logits: Tensor) -> Tensor:
    """The class with the largest logit for each image, int64 [N]; −1 where the logits are NaN.

    It is taken from the logits, because softmax rounds small differences of logits to equal probabilities.
    """
    return logits.argmax(1).where(~logits.isnan().any(1), -1)


def gradient_wrt(x: Tensor, value: Tensor, retain_graph: bool = False) -> Tensor:
    """The gradient of the scalar `value` by images x [N, …], made finite: NaN is replaced by zero.

    Infinity is replaced by the largest finite absolute entry of its image (1 where all are 0), so that it does not
    dominate the direction. Raises NoGradient where `value` does not depend on x.
    """
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, x, retain_graph=retain_graph, allow_unused=True)
    if gradient is None:
        raise NoGradient
    if gradient.device.type == "cpu" and gradient.sum().isfinite():  # one pass, not ten; a GPU would be waited for
        return gradient
    largest = gradient.abs().where(gradient.isfinite(), 0.0).flatten(1).amax(1).view(-1, *(1,) * (x.dim() - 1))
    bound = largest.where(largest > 0, 1.0)
    return gradient.nan_to_num(0.0, inf, -inf).clamp(-bound, bound)


def gives_gradients(model: nn.Module, x: Tensor) -> bool:
    """Whether the network has a gradient by images x, which may be zero."""
    x = x.detach().requires_grad_(True)
    try:
        with torch.enable_grad():
            gradient_wrt(x, logits_of(model, x).sum())
    except NoGradient:
        return False
    except RuntimeError as error:  # a kernel without a derivative
        if is_out_of_memory(error):
            raise
        return False
    return True
