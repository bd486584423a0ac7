"""Averages of a network's weights over its training steps."""

from typing import Protocol

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averaging(Protocol):
    """An average of a network's weights, taken along its training."""

    def step(self) -> None:
        """Update the average, and where it is due the network; call it after each optimiser step."""


class ExponentialAverage:
    """Sets a network to the exponential moving average of its weights and buffers after the last of `steps` steps.

    The average starts at the weights of the first step; after that each step adds the share 1 − `decay` (Polyak and
    Juditsky 1992; in adversarial training: Gowal et al. 2020, arXiv 2010.03593).
    """

    def __init__(self, network: nn.Module, decay: float, steps: int) -> None:
        self.network, self.steps, self.taken = network, steps, 0
        average = get_ema_multi_avg_fn(decay)
        self.average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    def step(self) -> None:
        self.taken += 1
        self.average.update_parameters(self.network)
        if self.taken == self.steps:
            self.network.load_state_dict(self.average.module.state_dict())
