"""Square attack: random search with squares of one colour, without gradients.

Andriushchenko, Croce, Flammarion and Hein 2020, arXiv 1912.00049; in L1 Croce and Hein 2021, arXiv 2103.01208.
"""

from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Norm, per_image
from trustml_cli.attacks.attempts import AttackState, Attempt, MultiAttemptAttack
from trustml_cli.attacks.geometry import normalised, project, unit_step
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 after which the squares' area halves
ORDER = {Norm.l2: 2.0, Norm.l1: 1.0}


@dataclass(frozen=True, kw_only=True)
class Square(MultiAttemptAttack):
    """Random search: changes one random square per query and keeps the change if the margin increases.

    Starts from vertical stripes of ±ε (L2, L1: from a grid of small peaks) and stays within the budget. `area` is the
    share of the image that the first squares cover; it is halved by the paper's schedule.

    It uses logits but no gradients: at most `queries` queries per image in each of `restarts` runs, only for images
    without success so far.

        attack = Square(norm=Norm.linf, target=None, queries=5000, restarts=1, area=0.8)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf, Norm.l2, Norm.l1)
    access: ClassVar[Access] = Access.query

    queries: int
    restarts: int
    area: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "queries", "restarts", at_least=1)
        require(self, "area", above=0, at_most=1)

    @torch.no_grad()
    def attack_remaining(self, state: AttackState, epsilon: float) -> None:
        for _ in range(self.restarts):
            for attempt in state.attempts(None):
                state.take(attempt, *self.run(state.model, attempt, epsilon))

    def run(self, model: nn.Module, attempt: Attempt, epsilon: float) -> tuple[Tensor, Tensor]:
        """Run the attack once; return the image found for each row of `attempt` and its margin."""
        found = (stripes if self.norm is Norm.linf else partial(peaks, norm=self.norm))(attempt.x, epsilon)
        change = repaint if self.norm is Norm.linf else partial(move_mass, norm=self.norm)
        margins = attempt.x.new_full((len(found),), -torch.inf)
        rows = torch.arange(len(found), device=found.device)
        x, x_adv, best = attempt.x, found, margins
        proposal = found
        for query in range(self.queries):
            if query:
                side = max(round(sqrt(self.share(query - 1) * x.shape[2] * x.shape[3])), 1)
                proposal = change(x, x_adv, epsilon, side)
            now = attempt.margin(logits_of(model, proposal), rows)
            better = now > best
            x_adv = torch.where(per_image(better, x), proposal, x_adv)
            best = torch.where(better, now, best)
            succeeded = best > 0
            if succeeded.any():
                found[rows[succeeded]], margins[rows[succeeded]] = x_adv[succeeded], best[succeeded]
                rows, x, x_adv, best = rows[~succeeded], x[~succeeded], x_adv[~succeeded], best[~succeeded]
                if not len(rows):
                    return found, margins
        found[rows], margins[rows] = x_adv, best
        return found, margins

    def share(self, query: int) -> float:
        """The share of the image that the square of this query covers."""
        return self.area * 0.5 ** sum(query > halving for halving in HALVINGS)


def stripes(x: Tensor, epsilon: float) -> Tensor:
    """The images with ±epsilon added to every column of every channel, with random signs."""
    return (x + epsilon * signs(x[:, :, :1, :])).clamp(0, 1)


def repaint(x: Tensor, x_adv: Tensor, epsilon: float, side: int) -> Tensor:
    """Set one random square of x_adv to x ± epsilon, with a random sign for each channel."""
    side = min(side, *x.shape[2:])
    top, left = corner(x, side), corner(x.transpose(2, 3), side)
    row, column = (torch.arange(size, device=x.device) for size in x.shape[2:])
    inside = ((row >= top) & (row < top + side))[:, :, None] & ((column >= left) & (column < left + side))[:, None]
    return torch.where(inside[:, None], (x + epsilon * signs(x[:, :, :1, :1])).clamp(0, 1), x_adv)


def peaks(x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Add a grid of about 5 × 5 small peaks with random signs per channel, of L2 norm epsilon (L1: at most)."""
    count, channels, height, width = x.shape
    side = max(min(height, width) // 5, 1)
    change = torch.zeros_like(x)
    rows, columns = height // side, width // side
    up = signs(x.new_empty(count, channels, rows, 1, columns, 1))
    tiles = (up * peak(side, x, norm)[:, None, :]).reshape(count, channels, rows * side, columns * side)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    change[:, :, top : top + rows * side, left : left + columns * side] = tiles
    return within(x, change, epsilon, norm)


def within(x: Tensor, change: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """The images x + `change`, scaled to a size of `epsilon` and clipped in L2, projected in L1."""
    if norm is Norm.l1:
        return project(x + change, x, epsilon, norm)
    return (x + epsilon * unit_step(change, norm)).clamp(0, 1)


def move_mass(x: Tensor, x_adv: Tensor, epsilon: float, side: int, norm: Norm) -> Tensor:
    """Set the perturbation of one random square to zero, and move its and the unused budget to another square."""
    side = min(max(side, 3) // 2 * 2 + 1, *x.shape[2:])
    order, channels = ORDER[norm], x.shape[1]
    change = x_adv - x
    into, out_of = window(x, side), window(x, side)
    old = change[into]
    left_over = (epsilon**order - change.flatten(1).abs().pow(order).sum(1)).clamp(min=0) / channels
    emptied = change.clone()
    emptied[into] = 0
    emptied[out_of] = 0
    freed = (change.abs().pow(order) - emptied.abs().pow(order)).sum((2, 3), keepdim=True)
    shape = peak(side, x, norm) * signs(old[:, :, :1, :1]) + by_channel(old, order)
    size = (per_image(left_over, x) + freed).clamp(min=0).pow(1 / order) * (channels if norm is Norm.l1 else 1)
    emptied[into] = by_channel(shape, order) * size
    return within(x, emptied, epsilon, norm)


def peak(side: int, x: Tensor, norm: Norm) -> Tensor:
    """A square of norm 1, [side, side]: positive in one half, negative in the other; randomly transposed."""
    half = pyramid(side // 2, side, norm), -pyramid(side - side // 2, side, norm)
    each = [normalised(part.flatten()[None], ORDER[norm]).view_as(part) for part in half if len(part)]
    both = normalised(torch.cat(each)[None], ORDER[norm])[0].to(x)
    return both.T if torch.rand(()) > 0.5 else both


def pyramid(height: int, width: int, norm: Norm) -> Tensor:
    """Nested squares around the centre, the i-th with weight 1/i² (the paper's equation 2), in L1 1/i⁴."""
    row, column = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    ring = torch.maximum(row.abs()[:, None], column.abs()[None])
    rings = max(height, width) // 2 + 1
    weights = torch.arange(1, rings + 1, dtype=torch.float) ** (-4 / ORDER[norm])
    return weights.flip(0).cumsum(0).flip(0)[ring]


def corner(x: Tensor, side: int) -> Tensor:
    """A random first row of a square for each image, int64 [N, 1]."""
    return torch.randint(0, x.shape[2] - side + 1, (len(x), 1), device=x.device)


def window(x: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The index of a random square of each image; it selects [N, C, side, side]."""
    span = torch.arange(side, device=x.device)
    rows = (corner(x, side) + span)[:, None, :, None]
    columns = (corner(x.transpose(2, 3), side) + span)[:, None, None, :]
    image, channel = (torch.arange(size, device=x.device) for size in x.shape[:2])
    return image[:, None, None, None], channel[None, :, None, None], rows, columns


def signs(like: Tensor) -> Tensor:
    """Random values −1 or 1, of the shape of `like`."""
    return torch.randint_like(like, 0, 2) * 2 - 1


def by_channel(change: Tensor, order: float) -> Tensor:
    """Each channel of each image divided by its `order`-norm."""
    return normalised(change.flatten(0, 1), order).view_as(change)
