"""Weights that are drawn back, every few steps, to where they have been on the way."""

import torch
from torch import nn


class Lookahead:
    """A slow copy of all that a network computes with, its BatchNorm statistics included.

    Every `every` steps the copy moves towards the network, and the network is set to the copy; after the last of
    `steps` steps it is set to the copy once more. Of where it was the copy keeps `decay`^`every` · (steps taken /
    `steps`)³: little at first, much at the end. A run of fewer than `every` steps is left as it is.

    After Zhang et al. 2019, arXiv 1907.08610; with such a schedule in Jordan 2024, arXiv 2404.00498.
    """

    def __init__(self, network: nn.Module, every: int, decay: float, steps: int) -> None:
        self.fast = [values for values in network.state_dict().values() if values.is_floating_point()]
        self.slow = [values.clone() for values in self.fast]
        self.every, self.decay, self.steps, self.taken = every, decay, steps, 0

    @torch.no_grad()
    def step(self) -> None:
        """To be called after each step of the optimiser."""
        self.taken += 1
        moves, ends = self.taken % self.every == 0, self.taken == self.steps and self.taken > self.every
        if moves:
            kept = self.decay**self.every * (self.taken / self.steps) ** 3
            torch._foreach_lerp_(self.slow, self.fast, 1 - kept)
        if moves or ends:
            torch._foreach_copy_(self.fast, self.slow)
