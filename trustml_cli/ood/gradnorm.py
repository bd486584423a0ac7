"""GradNorm: the size of the gradient by the output layer's weights.

Huang, Geng and Li 2021, arXiv 2110.00218.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, exact
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class GradientNorm(Detector):
    """The negative L1 norm of the gradient of KL(uniform ‖ softmax at `temperature`); the paper uses 1."""

    linear_head: ClassVar = True

    temperature: float

    def __post_init__(self) -> None:
        require(self, "temperature", above=0)

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return gradient_norm_score(outputs.logits, outputs.features, self.temperature)


def gradient_norm_score(logits: Tensor, features: Tensor, temperature: float) -> Tensor:
    """−‖∂/∂W KL(u ‖ softmax(z/T))‖₁ with z = Wh + b, of logits z [N, K] and features h [N, D]: float64 [N], at most 0.

    The gradient is (softmax(z/T) − 1/K)/T ⊗ h, whose norm is the product of both norms: no backward pass is needed.
    """
    by_logit = ((exact(logits) / temperature).softmax(1) - 1 / logits.shape[1]) / temperature
    return -by_logit.abs().sum(1) * exact(features).abs().sum(1)
