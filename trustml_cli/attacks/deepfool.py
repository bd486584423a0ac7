"""DeepFool: smallest perturbations by repeated steps to the nearest linearised decision boundary.

Moosavi-Dezfooli, Fawzi and Frossard 2016, arXiv 1511.04599.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import lengths, unit_step
from trustml_cli.attacks.losses import clear_margin, likeliest_wrong, of
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.models.inference import gradient_wrt, logits_of
from trustml_cli.system.ranges import require

NUDGE = 1e-4  # added to the length of every step, so that it crosses the boundary


@dataclass(frozen=True, kw_only=True)
class DeepFool(SmallestPerturbation):
    """Each of at most `steps` steps moves an image to the nearest decision boundary of the linearised logits.

    The step is |f|/‖w‖₂² · w in L2 and |f|/‖w‖₁ · sign(w) in L∞, where f is the logit of a class minus that of the
    true class, and w is the gradient of f. The perturbation is the sum of the steps times 1 + `overshoot`; the image is
    clipped to [0, 1]. Returns x if the final image is classified correctly.

    Only the boundaries to the `candidates` most likely classes (including the true one) are considered, with one
    backward pass each. It has no targeted form.

        attack = DeepFool(norm=Norm.l2, target=None, steps=50, candidates=10, overshoot=0.02)
        x_adv = attack(model, x, y, epsilon=1.0)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l2, Norm.linf)

    steps: int
    candidates: int
    overshoot: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise ValueError(f"target: must be null, got {self.target}; DeepFool goes to the nearest class")
        require(self, "steps", at_least=1)
        require(self, "candidates", at_least=2)
        require(self, "overshoot", at_least=0)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            logits = logits_of(model, x)
        found = x.clone()
        rows = (clear_margin(logits, y, None) <= 0).nonzero()[:, 0]
        likeliest = likeliest_wrong(logits, y, self.candidates - 1)
        total = torch.zeros_like(x[rows])
        for _ in range(self.steps):
            if not len(rows):
                break
            logits, gaps, normals = boundaries(model, found[rows], y[rows], likeliest[rows])
            step = to_the_nearest(gaps, normals, self.norm).view_as(total)
            standing = clear_margin(logits, y[rows], None) <= 0
            rows, total = rows[standing], (total + step)[standing]
            found[rows] = (x[rows] + (1 + self.overshoot) * total).clamp(0, 1)
        if len(rows):
            with torch.no_grad():
                rows = rows[clear_margin(logits_of(model, found[rows]), y[rows], None) <= 0]
            found[rows] = x[rows]
        return found


def boundaries(model: nn.Module, x: Tensor, y: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, K], the logit differences of `classes` [N, k] to y [N, k], and their input gradients [N, k, D]."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = logits_of(model, x)
        ahead = logits.gather(1, classes) - of(logits, y)[:, None]
    last = ahead.shape[1] - 1
    gradients = [gradient_wrt(x, ahead[:, k].sum(), retain_graph=k < last).flatten(1) for k in range(last + 1)]
    return logits.detach(), ahead.detach(), torch.stack(gradients, 1)


def to_the_nearest(gaps: Tensor, normals: Tensor, norm: Norm) -> Tensor:
    """The step [N, D] to the nearest of k hyperplanes, for logit differences `gaps` [N, k] with gradients `normals`.

    It is zero where all normals are zero.
    """
    slopes = lengths(normals.flatten(0, 1), 2 if norm is Norm.l2 else 1).view_as(gaps)
    distance, nearest = (gaps.abs() / slopes).where(slopes > 0, torch.inf).min(1)
    normal = normals[torch.arange(len(gaps), device=gaps.device), nearest]
    size = distance.where(distance.isfinite(), 0.0)[:, None] + NUDGE
    return size * unit_step(normal, norm)
