"""Evaluation of a rectifier and its detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from trustml_cli.defences.detector import FittedDetector
from trustml_cli.defences.rectify import RectifyingNetwork
from trustml_cli.models.inference import logits_of, predicted_classes

KEPT = 100  # number of example images of each kind that are kept


@dataclass(frozen=True)
class RectifiedResult:
    """Predictions for N perturbed images, on the CPU; each of shape [N].

    `before` is the classifier's prediction for the clean image, `bare` that for the perturbed image, and `rectified`
    that for the rectified image; −1 for invalid logits. `score` is the detector's score. `likeness` is the largest
    |cosine similarity| of the perturbation to one that the rectifier was trained on (0 for no perturbation). `examples`
    are the first perturbed images, [M, C, H, W].
    """

    labels: Tensor
    before: Tensor
    bare: Tensor
    rectified: Tensor
    score: Tensor
    likeness: Tensor
    examples: Tensor

    def combined(self, threshold: float) -> Tensor:
        """The predictions if only the images with a score above `threshold` are rectified, [N]."""
        return self.rectified.where(self.score > threshold, self.bare)


@torch.no_grad()
def ask_rectified(
    guarded: nn.Sequential, machine: FittedDetector, x: Tensor, x_adv: Tensor, y: Tensor
) -> RectifiedResult:
    """Predictions for images x_adv, perturbed from x [N, C, H, W]; `guarded` is a rectifier and its classifier."""
    rectifier, classifier = guarded
    assert isinstance(rectifier, RectifyingNetwork), type(rectifier)
    rectified = rectifier(x_adv)
    perturbation, learnt = (x_adv - x).flatten(1), rectifier.perturbations.flatten(1)
    alike = cosine_similarity(perturbation[:, None], learnt[None], dim=2).abs().amax(1)
    before, bare, behind = (predicted_classes(logits_of(classifier, part)).cpu() for part in (x, x_adv, rectified))
    return RectifiedResult(
        y.cpu(), before, bare, behind, machine.score(rectified - x_adv), alike.cpu(), x_adv[:KEPT].cpu()
    )


def concatenate(parts: Sequence[RectifiedResult]) -> RectifiedResult:
    """Concatenate the results of several batches; at most `KEPT` examples are kept."""
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in RectifiedResult.__dataclass_fields__}
    return RectifiedResult(**{**whole, "examples": whole["examples"][:KEPT]})
