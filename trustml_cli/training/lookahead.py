"""Lookahead: weights that are set, every few steps, to their moving average."""

import torch
from torch import nn


class Lookahead:
    """A moving average (slow copy) of a network's weights and BatchNorm statistics.

    Every `every` steps the slow copy is interpolated towards the network, and the network is set to the copy; after
    the last of `steps` steps it is set to the copy once more. In the interpolation the copy has the weight
    `decay`^`every` · (steps taken / `steps`)³, which grows over the run. Fewer than `every` steps change nothing.

    After Zhang et al. 2019, arXiv 1907.08610; with such a schedule in Jordan 2024, arXiv 2404.00498.
    """

    def __init__(self, network: nn.Module, every: int, decay: float, steps: int) -> None:
        self.fast = [values for values in network.state_dict().values() if values.is_floating_point()]
        self.slow = [values.clone() for values in self.fast]
        self.every, self.decay, self.steps, self.taken = every, decay, steps, 0

    @torch.no_grad()
    def step(self) -> None:
        """Update the average; call it after each optimiser step."""
        self.taken += 1
        moves, ends = self.taken % self.every == 0, self.taken == self.steps and self.taken > self.every
        if moves:
            kept = self.decay**self.every * (self.taken / self.steps) ** 3
            torch._foreach_lerp_(self.slow, self.fast, 1 - kept)
        if moves or ends:
            torch._foreach_copy_(self.fast, self.slow)
