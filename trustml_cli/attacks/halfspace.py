"""The smallest change of an image that takes it across a hyperplane without leaving [0, 1], exactly, in four norms."""

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import over_largest


def into_halfspace(x: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The smallest d [N, D] in `norm` with normal·d ≥ gap and 0 ≤ x + d ≤ 1, for images x [N, D] and gaps [N] of ≥ 0.

    Where [0, 1] does not allow as much, d goes as far as it does. A value gains |normal| for each unit that it moves
    and has room as far as 0 or 1. L∞ moves all of them by one amount and L2 each in proportion to its gain, until
    they run out of room; L1 fills one after the other, those that gain the most per unit first, and L0 those that
    gain the most with all their room.
    """
    largest, normal = over_largest(normal)  # squares of gains that are far from 1 would round to 0 or infinity
    gap = gap / largest.where(largest > 0, 1.0)
    gain = normal.abs()
    room = torch.where(normal > 0, 1 - x, x).where(gain > 0, 0.0)
    if norm in (Norm.linf, Norm.l2):
        move = rising(gain, room, gap, torch.ones_like(gain) if norm is Norm.linf else gain)
    else:
        move = filling(gain, room, gap, gain if norm is Norm.l1 else gain * room)
    return move * normal.sign()


def rising(gain: Tensor, room: Tensor, gap: Tensor, pace: Tensor) -> Tensor:
    """min(level·pace, room) at the lowest level where the gains add up to the gap.

    They grow with the level along a concave line of straight pieces: Newton's method, begun at 0, stays below the
    answer and is there after a few pieces.
    """
    precision = 16 * torch.finfo(gain.dtype).eps
    level = torch.zeros_like(gap)
    move = torch.zeros_like(gain)
    for _ in range(gain.shape[1] + 1):
        missing = gap - (gain * move).sum(1)
        slope = (gain * pace * (move < room)).sum(1)
        unfinished = (missing > precision * gap) & (slope > 0)
        if not unfinished.any():
            break
        level = torch.where(unfinished, level + missing / slope, level)
        move = torch.minimum(level[:, None] * pace, room)
    return move


def filling(gain: Tensor, room: Tensor, gap: Tensor, worth: Tensor) -> Tensor:
    """The room of one value after the other, the highest worth first, until the gains add up to the gap."""
    order = worth.argsort(dim=1, descending=True, stable=True)
    gain, room = gain.gather(1, order), room.gather(1, order)
    before = (gain * room).cumsum(1) - gain * room
    needed = (gap[:, None] - before).clamp(min=0) / gain.where(gain > 0, 1.0)
    return torch.zeros_like(room).scatter(1, order, torch.minimum(needed, room))
