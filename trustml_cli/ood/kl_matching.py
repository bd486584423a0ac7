"""KL matching: the divergence of the softmax from the typical softmax of each class.

Hendrycks et al. 2022, arXiv 1911.11132.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, Fitting, exact


@dataclass(frozen=True, kw_only=True)
class KLMatching(Detector):
    """The divergence from the nearest of the mean softmax outputs of each predicted class, on validation images."""

    def fit(self, training: Fitting, validation: Fitting) -> FittedState:
        return {"typical": typical_outputs(validation.outputs.logits)}

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return kl_matching_score(outputs.logits, learned["typical"])


def typical_outputs(logits: Tensor) -> Tensor:
    """The mean softmax of the images of each class that is predicted at all, from logits [N, K]: float64 [≤ K, K]."""
    probabilities = exact(logits).softmax(1)
    predicted = probabilities.argmax(1)
    return torch.stack([probabilities[predicted == number].mean(0) for number in sorted(set(predicted.tolist()))])


def kl_matching_score(logits: Tensor, typical: Tensor) -> Tensor:
    """minⱼ KL(softmax(z) ‖ dⱼ) in nats of logits z [N, K], dⱼ the rows of `typical` [M, K]: float64 [N], at least 0."""
    logs = exact(logits).log_softmax(1)
    typical = typical.clamp_min(torch.finfo(typical.dtype).tiny).log()
    return ((logs.exp() * logs).sum(1, keepdim=True) - logs.exp() @ typical.T).amin(1)
