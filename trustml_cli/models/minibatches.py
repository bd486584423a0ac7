"""The mini-batch loop for auxiliary networks: substitutes, adversaries, rectifiers."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler


def fit_minibatches(
    loss: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    shuffled: Callable[[], Tensor],
    batch_size: int,
    epochs: int = 1,
    schedule: LRScheduler | None = None,
) -> None:
    """Minimize `loss` with one step of `optimizer` for each batch, for `epochs` epochs.

    `shuffled` returns the indices of all examples, int64 [N], in the order of an epoch; `loss` maps the indices of a
    batch to its mean loss. `schedule` is stepped after each batch.
    """
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.split(shuffled(), batch_size):
                descend(optimizer, loss(rows))
                if schedule is not None:
                    schedule.step()


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step of `optimizer` with the gradient of `loss`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
