"""Detects perturbed images from the change that a rectifying network makes to them.

Akhtar, Liu and Mian 2018, arXiv 1711.05929, section 3.3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustml_cli.system.ranges import require

FLOOR = 0.01  # pixel units (about 2.5 of 255 grey levels), added before the logarithm to suppress small coefficients


def features(change: Tensor) -> NDArray[np.float64]:
    """Log |DCT-II| of changes [N, C, H, W], channel by channel, orthonormal, in natural logarithms; [N, C·H·W]."""
    from scipy.fft import dctn

    spectrum = dctn(change.cpu().double().numpy(), type=2, axes=(-2, -1), norm="ortho")
    logarithms: NDArray[np.float64] = np.log(np.abs(spectrum) + FLOOR).reshape(len(change), -1)
    return logarithms


@dataclass(frozen=True, kw_only=True)
class PerturbationDetector:
    """A linear support vector machine on standardised `features`; a larger `C` means less regularisation."""

    C: float

    def __post_init__(self) -> None:
        require(self, "C", above=0)

    def fit(self, clean: Tensor, perturbed: Tensor) -> "FittedDetector":
        """Fit to the rectifier's changes of clean and of perturbed images, both [N, C, H, W]."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC

        machine = make_pipeline(StandardScaler(), LinearSVC(C=self.C, dual=False, random_state=0))
        is_perturbed = np.repeat([0, 1], [len(clean), len(perturbed)])
        machine.fit(np.concatenate([features(clean), features(perturbed)]), is_perturbed)
        return FittedDetector(machine)


@dataclass(frozen=True)
class FittedDetector:
    """A fitted scikit-learn pipeline, `machine`."""

    machine: object

    def score(self, change: Tensor) -> Tensor:
        """The SVM score of changes [N, C, H, W]: float64 [N]; higher means more likely perturbed."""
        return torch.from_numpy(self.machine.decision_function(features(change)))  # type: ignore[attr-defined]
