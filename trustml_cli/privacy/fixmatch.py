"""FixMatch: training on a few labelled and many unlabelled images.

Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang and Raffel 2020, arXiv 2001.07685.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.training.step import TrainingState, TrainingStep

CONFIDENCE = 0.95  # from which on a prediction becomes a label
RATIO = 4  # unlabelled images for each labelled one; 7 in the paper
WEAK, STRONG = 0.4, 0.7  # strengths of `warp` for labelled images, and for those that a label is carried over to
TURN, SHEAR, ZOOM, SHIFT = 0.5, 0.3, 0.2, 0.2  # of `warp`: radians, slope, share of the size, share of half the side
HOLE = 3  # a part of this of the side is cut out


@dataclass(frozen=True, kw_only=True)
class FixMatch(TrainingStep):
    """A step on the labels of some images, and on the network's own confident predictions for others.

    The first `labelled` training examples have labels, those of the others are −1 and not used. A prediction for a
    slightly warped image is the label of the same image, strongly warped and with a square cut out, where its softmax
    probability is at least `CONFIDENCE`.
    """

    labelled: int

    def batches(self, count: int, batch_size: int, steps: int) -> Sequence[Tensor]:
        size = min(batch_size, self.labelled)
        return [torch.cat([torch.randint(self.labelled, (size,)), torch.randint(count, (RATIO * size,))])
                for _ in range(steps)]  # fmt: skip

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        size = len(x) // (1 + RATIO)
        known, unknown = x[:size], x[size:]
        with torch.no_grad(), state.autocast():
            confidence, guessed = state.network(warp(unknown, WEAK)).softmax(1).max(1)
        sure = (confidence >= CONFIDENCE).float()
        shown = torch.cat([warp(known, WEAK), cut_out(warp(unknown, STRONG))])

        def closure() -> tuple[Tensor, Tensor]:
            logits = state.network(shown)
            carried = functional.cross_entropy(logits[size:], guessed, reduction="none")
            return state.cross_entropy(logits[:size], y[:size]) + (carried * sure).mean(), logits

        return state.step(closure)


def warp(x: Tensor, strength: float) -> Tensor:
    """Images x [N, C, H, W], each turned, sheared, zoomed and shifted at random; `strength` 0 changes nothing."""
    turn, shear, zoom, right, down = (
        (2 * torch.rand(len(x), device=x.device) - 1) * most * strength for most in (TURN, SHEAR, ZOOM, SHIFT, SHIFT)
    )
    sine, cosine, zoom = turn.sin(), turn.cos(), 1 + zoom
    rows = [cosine * zoom, shear - sine, right, sine * zoom, cosine * zoom, down]
    grid = functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def cut_out(x: Tensor) -> Tensor:
    """Images x [N, C, H, W] with a black square at a random place in each (DeVries and Taylor 2017, 1708.04552)."""
    height, width = x.shape[2:]
    reach = max(1, height // HOLE // 2)
    middle = torch.rand(2, len(x), 1, 1, 1, device=x.device)
    far = [
        (torch.arange(side, device=x.device).view(shape) - side * place).abs() > reach
        for side, shape, place in ((height, (-1, 1), middle[0]), (width, (1, -1), middle[1]))
    ]
    return x * (far[0] | far[1])
