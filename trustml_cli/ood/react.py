"""ReAct: the energy after large penultimate activations are clipped.

Sun, Guo and Li 2021, arXiv 2111.12797.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trustml_cli.models.features import ModelOutputs, logits_from
from trustml_cli.ood.detector import Detector, FittedState, Fitting
from trustml_cli.ood.energy import energy_score
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class RectifiedActivations(Detector):
    """Features are clipped at the `quantile` of all activations of the training images; the paper uses 0.9."""

    linear_head: ClassVar = True

    quantile: float

    def __post_init__(self) -> None:
        require(self, "quantile", above=0, at_most=1)

    def fit(self, training: Fitting, validation: Fitting) -> FittedState:
        values = training.outputs.features.cpu().numpy()  # torch.quantile takes at most 16 million values
        return {"most": torch.tensor(np.quantile(values, self.quantile))}

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return rectified_score(outputs.features, outputs.head, learned["most"].item())


def rectified_score(features: Tensor, head: nn.Linear, most: float) -> Tensor:
    """The energy −log Σₖ exp(zₖ) of z = W·min(h, most) + b for features h [N, D]: float64 [N]."""
    return energy_score(logits_from(head, features.clamp(max=most)), 1.0)
