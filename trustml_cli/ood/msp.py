"""The maximum softmax probability.

Hendrycks and Gimpel 2017, arXiv 1610.02136.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, exact


@dataclass(frozen=True, kw_only=True)
class MaxSoftmax(Detector):
    """The negative maximum softmax probability."""

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return max_softmax_score(outputs.logits)


def max_softmax_score(logits: Tensor) -> Tensor:
    """−maxₖ softmax(z)ₖ of logits z [N, K]: float64 [N], in [−1, −1/K].

    Computed in double precision: in single precision all highly confident predictions would be tied at −1.
    """
    return -exact(logits).softmax(1).amax(1)
