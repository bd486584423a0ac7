"""The loop of what is trained beside the networks of a run."""

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

from trustml_cli.models.minibatches import fit_minibatches


def test_each_epoch_takes_a_step_for_every_batch_of_its_own_order() -> None:
    weight = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = StepLR(optimizer, step_size=1, gamma=0.5)
    orders = [torch.tensor([4, 0, 2, 1, 3]), torch.tensor([1, 2, 3, 4, 0])]
    shown: list[list[int]] = []

    def loss(rows: Tensor) -> Tensor:
        shown.append(rows.tolist())
        return weight[rows].sum()

    waiting = iter(orders)
    with torch.no_grad():  # whoever calls may not want gradients; the loop does
        fit_minibatches(loss, optimizer, lambda: next(waiting), 2, epochs=2, schedule=schedule)
    assert shown == [[4, 0], [2, 1], [3], [1, 2], [3, 4], [0]]
    # lr 1, 1/2, 1/4, … at the six steps; the gradients of steps before are forgotten
    moved = [-(1 + 1 / 32), -(1 / 2 + 1 / 8), -(1 / 2 + 1 / 8), -(1 / 4 + 1 / 16), -(1 + 1 / 16)]
    assert weight.tolist() == pytest.approx(moved)
