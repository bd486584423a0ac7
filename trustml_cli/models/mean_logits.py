"""Several classifiers as one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MeanLogits(nn.Module):
    """The mean of the logits of several classifiers, and hence of their log-odds."""

    def __init__(self, classifiers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] for x [N, …]."""
        return torch.stack([classifier(x) for classifier in self.classifiers]).mean(0)
