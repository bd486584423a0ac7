"""Spectral signatures.

Tran, Li and Madry 2018, arXiv 1811.00636.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.backdoor_detection.suspicion import Finding, Inspection, Suspicion, beyond_clean


@dataclass(frozen=True, kw_only=True)
class SpectralSignatures(Suspicion):
    """The squared projection of a centred latent on the first singular direction of its class (`top_direction`).

    It is divided by its mean over the clean examples of the class, so that one threshold serves all classes. The paper
    has no clean examples and removes 1.5 times the assumed number of poisoned images of each class.
    """

    def inspect(self, seen: Inspection) -> Finding:
        scores, clean = (torch.zeros(len(part.labels)).double() for part in (seen.suspects, seen.clean))
        for number in sorted(set(seen.suspects.labels.tolist())):
            mine, theirs = seen.suspects.labels == number, seen.clean.labels == number
            mean, direction = top_direction(seen.suspects.latents[mine])
            scores[mine] = squared_projection(seen.suspects.latents[mine], mean, direction)
            clean[theirs] = squared_projection(seen.clean.latents[theirs], mean, direction)
            scale = (clean[theirs] if theirs.any() else scores[mine]).mean().clamp(min=1e-12)
            scores[mine] /= scale
            clean[theirs] /= scale
        return Finding(scores, beyond_clean(scores, clean, seen.quantile))


def top_direction(latents: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [D] of latents [N, D], and the first right singular vector [D] of latents − mean."""
    mean = latents.mean(0)
    centred = latents - mean
    return mean, torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]


def squared_projection(latents: Tensor, mean: Tensor, direction: Tensor) -> Tensor:
    """τ = ((R − mean)·v)² of latents R [N, D]: [N]."""
    return ((latents - mean) @ direction).square()
