"""A linear layer on histograms of oriented gradients, which nothing is learned for."""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.model import FixedFirst, InputSpec, Model, require_images
from trustml_cli.system.ranges import require

SMALL = 1e-4  # added under a root, whose gradient would be infinite at 0
SMALLEST = 1e-5  # of a mean that is divided by


@dataclass(frozen=True, kw_only=True)
class FixedFeatures(Model):
    """Logits that are linear in `OrientedGradients`; for images of at least 8×8.

    Training with differential privacy then adds noise to few weights only (Tramèr and Boneh 2021, arXiv 2011.11660, on
    a scattering transform). The shorter side of an image has `cells` cells, or as many as have 2×2 pixels.
    """

    cells: int
    orientations: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "cells", at_least=1)
        require(self, "orientations", at_least=2)

    def network(self, inputs: InputSpec) -> FixedFirst:
        _, height, width = require_images(inputs)
        side = min(height, width)
        if side < 8:
            raise ValueError(f"needs images of at least 8×8, got {height}×{width}")
        features = OrientedGradients(max(2, side // self.cells), self.orientations)
        values = features(torch.zeros(1, *inputs.shape)).shape[1]
        return FixedFirst(features, nn.Linear(values, inputs.classes))


class OrientedGradients(nn.Module):
    """Histograms of oriented gradients (Dalal and Triggs 2005), of images [N, C, H, W] to [N, D].

    Each pixel adds the length of its gradient (central differences, 0 at the edge; of the channel with the longest one)
    to the two nearest of the `orientations` in 0 to 2π, and to the four nearest cells of `cell`×`cell` pixels, with
    weights that fall linearly with the distance. The values of an image are divided by the mean sum of a cell, and the
    root is taken (the L1-sqrt normalisation of the paper, with the image as one block): the squared norm of an image's
    features is the number of its cells, whatever its contrast. Pixels left over at the right and lower edge are in no
    cell of their own.
    """

    window: Tensor

    def __init__(self, cell: int, orientations: int) -> None:
        super().__init__()
        self.cell, self.orientations = cell, orientations
        away = torch.arange(2 * cell) - cell // 2 - (cell - 1) / 2  # from the centre of a cell
        line = (1 - away.abs() / cell).clamp(min=0)
        self.register_buffer("window", (line[:, None] * line).expand(orientations, 1, -1, -1).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        right = functional.pad(x[..., 2:] - x[..., :-2], (1, 1))
        down = functional.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
        squares = right.square() + down.square()
        chosen = squares.argmax(1, keepdim=True)
        squares, right, down = (values.gather(1, chosen) for values in (squares, right, down))
        present = squares > 0  # elsewhere neither root nor angle has a gradient
        length = squares.where(present, 1.0).sqrt() * present
        turn = torch.atan2(down.where(present, 0.0), right.where(present, 1.0)) * (self.orientations / (2 * pi))
        low = turn.floor()
        upper = length * (turn - low)
        low = low.long() % self.orientations
        votes = x.new_zeros(len(x), self.orientations, *x.shape[2:])
        votes = votes.scatter_add(1, low, length - upper).scatter_add(1, (low + 1) % self.orientations, upper)
        before, after = self.cell // 2, self.cell - self.cell // 2  # a window reaches half a cell beyond its cell
        votes = functional.pad(votes, (before, after, before, after))
        cells = functional.conv2d(votes, self.window.to(x.dtype), stride=self.cell, groups=self.orientations)
        mean = cells.sum(1, keepdim=True).mean((2, 3), keepdim=True)
        return ((cells / (mean + SMALLEST)) + SMALL).sqrt().flatten(1)
