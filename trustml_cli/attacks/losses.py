"""What attacks climb: functions of the logits [N, K], one value for each image, that rise towards the attack's goal.

`y` holds the true classes, int64 [N]; `target` the classes that the images shall be taken for, int64 [N], or None for
any wrong one. The logits are those of `models.inference.logits_of`.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.inference import gradient_wrt, logits_of

CLEAR = 2e-6  # of the largest logit: a lead below it may be lost when the same images are judged in another batch


class Loss(Enum):
    """What an attack climbs."""

    ce = "ce"
    """Cross-entropy, by its log-odds: its direction, which does not vanish where a model is sure of itself."""
    ce_float32 = "ce_float32"
    """Cross-entropy as torch computes it: vanishes in float32 where a model is sure of itself, and so shows what a
    defence hides that makes it so (defensive distillation: Papernot et al. 2016, arXiv 1511.04508)."""
    margin = "margin"
    """How far the goal is ahead, in logits (Carlini and Wagner 2017, arXiv 1608.04644)."""
    dlr = "dlr"
    """Difference of logits ratio: blind to the scale of the logits."""


def per_image_loss(loss: Loss, y: Tensor, target: Tensor | None, above_all: bool) -> Callable[[Tensor], Tensor]:
    """The function of the logits that is meant; with `above_all` the target must be ahead of every class.

    Otherwise it is enough that it is ahead of y: any wrong answer counts, and the target is only where to go.
    """
    either = {Loss.ce: log_odds, Loss.ce_float32: cross_entropy}
    to_target = {Loss.margin: logit_margin, Loss.dlr: dlr_of_target}
    function = (either | (to_target if above_all else {Loss.margin: margin, Loss.dlr: dlr}))[loss]
    return partial(function, y=y, target=target)


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The cross-entropy with y, or minus that with the target, as torch computes it."""
    if target is None:
        return functional.cross_entropy(logits, y, reduction="none")
    return -functional.cross_entropy(logits, target, reduction="none")


def log_odds(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """How much likelier all other classes together are than y, log (1 − p)/p, or minus that of the target.

    It rises where the cross-entropy, log (1 + e^this), does, and its gradient is that of the cross-entropy over 1 − p:
    climbing the one is climbing the other, but neither value nor gradient rounds to 0 where a model is sure of itself.
    """
    label = y if target is None else target
    odds = without(logits, label).logsumexp(1) - of(logits, label)
    return odds if target is None else -odds


def dlr(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The difference of logits ratio (Croce and Hein 2020, arXiv 2003.01690, equations 6 and 7).

    How far the likeliest wrong class (or the target) is ahead of y, over the distance between the highest logit and
    the third (with a target: the mean of the third and the fourth): it does not change when a model scales its
    logits. Where a model has too few classes for that it is the bare difference.
    """
    return margin(logits, y, target) / spread(logits, 3 if target is None else 4)


def margin(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """How far the likeliest wrong class (or the target) is ahead of y, in logits."""
    return logit_margin(logits, y, None) if target is None else of(logits, target) - of(logits, y)


def dlr_of_target(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The same for a target that must be ahead of all other classes, not of y alone."""
    return logit_margin(logits, y, target) / spread(logits, 4)


def spread(logits: Tensor, count: int) -> Tensor:
    """From the highest logit to the mean of the third and later of the `count` highest.

    1 where there are too few, or where they are all equal.
    """
    if logits.shape[1] < count:
        return torch.ones_like(logits[:, 0])
    highest = logits.topk(count, dim=1).values
    apart = highest[:, 0] - highest[:, 2:].mean(1)
    return apart.where((apart > 0) & apart.isfinite(), 1.0)


def logit_margin(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """How far the goal is ahead: the best wrong class of y, or the target of the best other one.

    Minus infinity for an image that has no answer.
    """
    if target is None:
        ahead = without(logits, y).amax(1) - of(logits, y)
    else:
        ahead = of(logits, target) - without(logits, target).amax(1)
    return ahead.where(~ahead.isnan(), -torch.inf)


def clear_margin(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """`logit_margin` less its rounding error: above 0 the goal is reached, in whatever batch the model is asked."""
    return logit_margin(logits, y, target) - rounding(logits)


def rounding(logits: Tensor) -> Tensor:
    """How large a lead [N] must be to be clear."""
    return CLEAR * logits.detach().abs().nan_to_num(nan=0.0, posinf=0.0).amax(1)


def loss_gradient(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, K], `loss` of them [N], and the gradient of each image's loss by its own pixels, of x's shape."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = logits_of(model, x)
        values = loss(logits)
        gradient = gradient_wrt(x, values.sum())
    return logits.detach(), values.detach(), gradient


def likeliest_wrong(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` likeliest classes other than y, or all there are, likeliest first: int64 [N, count]."""
    return without(logits, y).topk(min(count, logits.shape[1] - 1), dim=1).indices


def of(logits: Tensor, label: Tensor) -> Tensor:
    """Each image's logit of its `label`, [N]."""
    return logits.gather(1, label[:, None])[:, 0]


def without(logits: Tensor, label: Tensor) -> Tensor:
    """The logits with minus infinity at each image's `label`."""
    return logits.scatter(1, label[:, None], -torch.inf)
