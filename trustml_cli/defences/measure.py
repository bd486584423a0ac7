"""What a rectifier and its detector make of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from trustml_cli.defences.detector import FittedDetector
from trustml_cli.defences.rectify import RectifyingNetwork

KEPT = 100  # images of each kind that are kept to be looked at


@dataclass(frozen=True)
class RectifiedResult:
    """What was said of N images after they were changed, on the CPU; each of shape [N].

    `before` is the bare classifier's answer to the image as it was, `bare` that to the image as shown, and `rectified`
    that behind the rectifier. `score` is the detector's, `likeness` the largest |cosine| of the perturbation with one
    that the rectifier learnt from (0 where there is none). `examples` are the first images as shown, [M, C, H, W].
    """

    labels: Tensor
    before: Tensor
    bare: Tensor
    rectified: Tensor
    score: Tensor
    likeness: Tensor
    examples: Tensor

    def combined(self, threshold: float) -> Tensor:
        """The answers where the images that score above `threshold` are rectified and the others go straight."""
        return self.rectified.where(self.score > threshold, self.bare)


@torch.no_grad()
def ask_rectified(
    guarded: nn.Sequential, machine: FittedDetector, x: Tensor, x_adv: Tensor, y: Tensor
) -> RectifiedResult:
    """What is said of images x_adv, which were x [N, C, H, W]; `guarded` is a rectifier and its classifier."""
    rectifier, classifier = guarded
    assert isinstance(rectifier, RectifyingNetwork), type(rectifier)
    rectified = rectifier(x_adv)
    perturbation, learnt = (x_adv - x).flatten(1), rectifier.perturbations.flatten(1)
    alike = cosine_similarity(perturbation[:, None], learnt[None], dim=2).abs().amax(1)
    before, bare, behind = (classifier(images).argmax(1).cpu() for images in (x, x_adv, rectified))
    return RectifiedResult(
        y.cpu(), before, bare, behind, machine.score(rectified - x_adv), alike.cpu(), x_adv[:KEPT].cpu()
    )


def concatenate(parts: Sequence[RectifiedResult]) -> RectifiedResult:
    """All parts in one."""
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in RectifiedResult.__dataclass_fields__}
    return RectifiedResult(**{**whole, "examples": whole["examples"][:KEPT]})
