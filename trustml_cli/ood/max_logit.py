"""The largest logit.

Hendrycks et al. 2022, arXiv 1911.11132.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, exact


@dataclass(frozen=True, kw_only=True)
class MaxLogit(Detector):
    """The negative largest logit; unlike the softmax it keeps the magnitude of the logits."""

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return max_logit_score(outputs.logits)


def max_logit_score(logits: Tensor) -> Tensor:
    """−maxₖ zₖ of logits z [N, K]: float64 [N]."""
    return -exact(logits).amax(1)
