"""Objectives that attacks maximise: functions of the logits [N, K] with one value per image.

`y` holds the true classes, int64 [N]; `target` the target classes, int64 [N], or None for an untargeted attack. The
logits are those of `models.inference.logits_of`.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.inference import gradient_wrt, logits_of

CLEAR = 2e-6  # relative to the largest logit: a smaller margin may be lost to rounding in a batch of another size


class Loss(Enum):
    """The objective that an attack maximises."""

    ce = "ce"
    """Cross-entropy in the form of log-odds: the same gradient direction, without underflow for confident models."""
    ce_float32 = "ce_float32"
    """Cross-entropy as torch computes it: its gradient vanishes in float32 for confident models, which reveals gradient
    masking by defences that raise the confidence (defensive distillation: Papernot et al. 2016, arXiv 1511.04508)."""
    margin = "margin"
    """Margin of the goal in logits (Carlini and Wagner 2017, arXiv 1608.04644)."""
    dlr = "dlr"
    """Difference of logits ratio: invariant to the scale of the logits."""


def per_image_loss(loss: Loss, y: Tensor, target: Tensor | None, above_all: bool) -> Callable[[Tensor], Tensor]:
    """The objective `loss` as a function of the logits; with `above_all` the target must exceed every other class.

    Otherwise the target must exceed only y: any wrong prediction is a success, and the target only sets the direction.
    """
    either = {Loss.ce: log_odds, Loss.ce_float32: cross_entropy}
    to_target = {Loss.margin: logit_margin, Loss.dlr: dlr_of_target}
    function = (either | (to_target if above_all else {Loss.margin: margin, Loss.dlr: dlr}))[loss]
    return partial(function, y=y, target=target)


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The cross-entropy with y, or minus the cross-entropy with the target, as torch computes it; [N]."""
    if target is None:
        return functional.cross_entropy(logits, y, reduction="none")
    return -functional.cross_entropy(logits, target, reduction="none")


def log_odds(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The log-odds against y, log (1 − p)/p with p = p(y), or minus the log-odds against the target; [N].

    The cross-entropy is softplus of the log-odds, so both increase together. The gradient is that of the cross-entropy
    divided by 1 − p; for confident models neither value nor gradient underflows.
    """
    label = y if target is None else target
    odds = without(logits, label).logsumexp(1) - of(logits, label)
    return odds if target is None else -odds


def dlr(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The difference of logits ratio (Croce and Hein 2020, arXiv 2003.01690, equations 6 and 7).

    The logit of the most likely wrong class (or the target) minus that of y, divided by the difference between the
    highest and the third highest logit (with a target: the mean of the third and fourth). It is invariant to the scale
    of the logits. For models with too few classes the divisor is 1.
    """
    return margin(logits, y, target) / spread(logits, 3 if target is None else 4)


def margin(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The logit of the most likely wrong class (or of the target) minus that of y, [N]."""
    return logit_margin(logits, y, None) if target is None else of(logits, target) - of(logits, y)


def dlr_of_target(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The difference of logits ratio for a target that must exceed all other classes, not only y; [N]."""
    return logit_margin(logits, y, target) / spread(logits, 4)


def spread(logits: Tensor, count: int) -> Tensor:
    """The highest logit minus the mean of the third to the `count`-th highest, [N].

    1 if there are fewer than `count` classes, or if the difference is 0 or not finite.
    """
    if logits.shape[1] < count:
        return torch.ones_like(logits[:, 0])
    highest = logits.topk(count, dim=1).values
    apart = highest[:, 0] - highest[:, 2:].mean(1)
    return apart.where((apart > 0) & apart.isfinite(), 1.0)


def logit_margin(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The margin of the goal: best wrong logit minus that of y, or the target's minus the best other; [N].

    Minus infinity for an image whose margin is NaN.
    """
    if target is None:
        ahead = without(logits, y).amax(1) - of(logits, y)
    else:
        ahead = of(logits, target) - without(logits, target).amax(1)
    return ahead.where(~ahead.isnan(), -torch.inf)


def clear_margin(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """`logit_margin` minus the rounding tolerance: above 0 the goal is reached regardless of the batching; [N]."""
    return logit_margin(logits, y, target) - rounding(logits)


def rounding(logits: Tensor) -> Tensor:
    """The rounding tolerance of the margin of each image, [N]."""
    return CLEAR * logits.detach().abs().nan_to_num(nan=0.0, posinf=0.0).amax(1)


def loss_gradient(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, K], their `loss` [N], and the input gradient of each image's loss, of x's shape."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = logits_of(model, x)
        values = loss(logits)
        gradient = gradient_wrt(x, values.sum())
    return logits.detach(), values.detach(), gradient


def likeliest_wrong(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` (at most K − 1) most likely classes other than y, most likely first: int64 [N, count]."""
    return without(logits, y).topk(min(count, logits.shape[1] - 1), dim=1).indices


def of(logits: Tensor, label: Tensor) -> Tensor:
    """The entry of `logits` at each image's `label`, [N]."""
    return logits.gather(1, label[:, None])[:, 0]


def without(logits: Tensor, label: Tensor) -> Tensor:
    """The logits with the entry at each image's `label` set to minus infinity."""
    return logits.scatter(1, label[:, None], -torch.inf)
