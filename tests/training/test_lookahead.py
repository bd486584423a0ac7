"""Lookahead against numbers worked out by hand."""

import torch
from torch import nn

from trustml_cli.training.lookahead import Lookahead


def test_weights_are_drawn_back_as_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0)
    lookahead = Lookahead(network, every=2, decay=0.5, steps=6)

    def after_step_to(value: float) -> float:
        network.weight.data.fill_(value)
        lookahead.step()
        return network.weight.item()

    assert after_step_to(4) == 4  # only every other step
    # the copy keeps 0.5² · (2/6)³ = 1/108 of its 0, and takes 107/108 of 108
    assert abs(after_step_to(108) - 107) < 1e-4
    assert after_step_to(200) == 200
    # 0.25 · (4/6)³ = 2/27 of 107, and 25/27 of 134
    assert abs(after_step_to(134) - 132) < 1e-4
    assert after_step_to(-5) == -5
    assert abs(after_step_to(4) - 36) < 1e-4  # 0.25 of 132, and 0.75 of 4


def test_at_the_end_the_copy_is_kept_as_it_is() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0)
    lookahead, after = Lookahead(network, every=4, decay=0.5, steps=6), []
    for value in (1.0, 2.0, 3.0, 54.0, 7.0, 9.0):
        network.weight.data.fill_(value)
        lookahead.step()
        after.append(network.weight.item())
    # 0.5⁴ · (4/6)³ = 1/54 of 0, and 53/54 of 54
    assert torch.tensor(after).sub(torch.tensor([1.0, 2.0, 3.0, 53.0, 7.0, 53.0])).abs().max() < 1e-4


def test_statistics_are_drawn_back_and_counters_are_left() -> None:
    network = nn.BatchNorm1d(2).train()
    lookahead = Lookahead(network, every=1, decay=1.0, steps=2)
    network(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))  # means 1 and 20, of which torch takes a tenth
    lookahead.step()
    assert network.running_mean is not None
    torch.testing.assert_close(network.running_mean, torch.tensor([0.1, 2.0]) * 7 / 8)
    assert network.num_batches_tracked == 1


def test_a_run_too_short_for_it_is_left_alone() -> None:
    network = nn.Linear(1, 1)
    lookahead = Lookahead(network, every=3, decay=0.5, steps=2)
    for value in (1.0, 2.0):
        network.weight.data.fill_(value)
        lookahead.step()
    assert network.weight.item() == 2.0
