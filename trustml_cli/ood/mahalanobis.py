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
        means, whitening = class_gaussians(training.outputs.features, training.labels)
        return {"means": means, "whitening": whitening}

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return mahalanobis_score(outputs.features, learned["means"], learned["whitening"])


def class_gaussians(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each class that occurs [K, D], and W [D, R] with WWᵀ the inverse of the shared covariance; float64.

    It is the pseudo-inverse, because constant features (dead units) make the covariance singular; deviations along them
    do not contribute to the distance.
    """
    features, labels = exact(features), labels.cpu()
    classes, number = torch.unique(labels, return_inverse=True)
    sums = features.new_zeros(len(classes), features.shape[1]).index_add(0, number, features)
    means = sums / number.bincount().unsqueeze(1)
    centred = features - means[number]
    covariance = centred.T @ centred / len(features)
    variances, directions = torch.linalg.eigh(covariance)
    vary = variances > len(variances) * torch.finfo(torch.float64).eps * variances.amax()
    return means, directions[:, vary] / variances[vary].sqrt()


def mahalanobis_score(features: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """minₖ ‖(h − μₖ)W‖² = minₖ (h − μₖ)ᵀ Σ⁻¹ (h − μₖ) of features h [N, D]: float64 [N], at least 0."""
    at, centres = exact(features) @ whitening, means @ whitening
    return torch.cdist(at, centres, compute_mode="donot_use_mm_for_euclid_dist").amin(1).square()
