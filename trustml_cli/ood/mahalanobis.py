"""The Mahalanobis distance to the nearest class, in feature space.

Lee, Lee, Lee and Shin 2018, arXiv 1807.03888; here on the penultimate features alone, without input preprocessing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, Fitting, exact


@dataclass(frozen=True, kw_only=True)
class Mahalanobis(Detector):
    """Squared Mahalanobis distance to the nearest class mean, with a covariance shared by all classes."""

    def fit(self, training: Fitting, validation: Fitting) -> FittedState:
        means, precision = class_gaussians(training.outputs.features, training.labels)
        return {"means": means, "precision": precision}

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return mahalanobis_score(outputs.features, learned["means"], learned["precision"])


def class_gaussians(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each class that occurs [K, D] and the inverse of the shared covariance [D, D], both float64.

    The pseudo-inverse is used because constant features (dead units) make the covariance singular; deviations along
    them do not contribute to the distance.
    """
    features, labels = exact(features), labels.cpu()
    classes, number = torch.unique(labels, return_inverse=True)
    sums = features.new_zeros(len(classes), features.shape[1]).index_add(0, number, features)
    means = sums / number.bincount().unsqueeze(1)
    centred = features - means[number]
    covariance = centred.T @ centred / len(features)
    return means, torch.linalg.pinv(covariance, hermitian=True)


def mahalanobis_score(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """minₖ (h − μₖ)ᵀ Σ⁻¹ (h − μₖ) of features h [N, D]: float64 [N], at least 0."""
    offsets = exact(features).unsqueeze(1) - means  # [N, K, D]
    return ((offsets @ precision) * offsets).sum(2).amin(1)
