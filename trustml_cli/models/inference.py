"""How attacks ask a network: for its logits, and for gradients by the image.

Every attack and check asks through here, so that what a network's arithmetic may do is dealt with once: logits in any
number format, logits and gradients that are not a number, and networks that give no gradient.
"""

from math import inf

import torch
from torch import Tensor, nn

from trustml_cli.system.hardware import is_out_of_memory


class NoGradient(ValueError):
    """The network gives no gradient by the image: it is constant, quantised, or detached from the image inside."""

    def __init__(self) -> None:
        super().__init__("needs gradients by the image, and this network gives none; take one without, such as square")


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """The logits [N, K] of images x, in float32 whatever the network computes in.

    An image has an answer where its largest logit is finite; minus infinity for other classes rules them out. Where an
    image has none (a logit is NaN or infinity), all of its logits are NaN here, and no comparison with them holds.
    Raises ValueError where the network returns anything but a tensor [N, K].
    """
    logits: object = model(x)
    if not (isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(x)):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"a network must return logits [images, classes], and of {len(x)} images this returns {shape}")
    logits = logits.float()
    return logits.where(logits.detach().amax(1, keepdim=True).isfinite(), torch.nan)


def predicted_classes(logits: Tensor) -> Tensor:
    """The class of each image, int64 [N]: that of its largest logit, −1 where it has no answer.

    Of the logits, not of their softmax: that rounds to the same for all classes where they are small.
    """
    return logits.argmax(1).where(~logits.isnan().any(1), -1)


def gradient_wrt(x: Tensor, value: Tensor, retain_graph: bool = False) -> Tensor:
    """The gradient of the number `value` by images x [N, …], finite: NaN counts as zero.

    Infinity counts as the largest finite entry of its image (1 where there is none): a direction with much more of it
    than of all others would lead nowhere else. Raises NoGradient where `value` does not hang on x.
    """
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, x, retain_graph=retain_graph, allow_unused=True)
    if gradient is None:
        raise NoGradient
    largest = gradient.abs().where(gradient.isfinite(), 0.0).flatten(1).amax(1).view(-1, *(1,) * (x.dim() - 1))
    bound = largest.where(largest > 0, 1.0)
    return gradient.nan_to_num(0.0, inf, -inf).clamp(-bound, bound)


def gives_gradients(model: nn.Module, x: Tensor) -> bool:
    """Whether the network gives a gradient by images x; one of zeros is one."""
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
