"""The exact smallest change of an image that moves it into a half-space within [0, 1], in four norms."""

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import over_largest


def into_halfspace(x: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The smallest d [N, D] in `norm` with normal·d ≥ gap and 0 ≤ x + d ≤ 1, for images x [N, D] and gaps [N] of ≥ 0.

    If no point of [0, 1] satisfies the constraint, d maximises normal·d. The gain of a value is |normal| per unit of
    change; its room is the distance to 0 or 1 in that direction. L∞ moves all values by the same amount and L2 each in
    proportion to its gain, limited by the room. L1 moves one value after the other by its full room, in descending
    order of gain; L0 in descending order of gain times room.
    """
    largest, normal = over_largest(normal)  # squares of very small or large gains would under- or overflow
    gap = gap / largest.where(largest > 0, 1.0)
    gain = normal.abs()
    room = torch.where(normal > 0, 1 - x, x).where(gain > 0, 0.0)
    if norm in (Norm.linf, Norm.l2):
        move = rising(gain, room, gap, torch.ones_like(gain) if norm is Norm.linf else gain)
    else:
        move = filling(gain, room, gap, gain if norm is Norm.l1 else gain * room)
    return move * normal.sign()


def rising(gain: Tensor, room: Tensor, gap: Tensor, pace: Tensor) -> Tensor:
    """min(level·pace, room) at the smallest level where the total gain equals the gap.

    The total gain is a concave, piecewise linear function of the level. Newton's method from 0 therefore never
    overshoots and ends after finitely many steps.
    """
    precision = 16 * torch.finfo(gain.dtype).eps
    level = torch.zeros_like(gap)
    move = torch.zeros_like(gain)
    pull = gain * pace
    for _ in range(gain.shape[1] + 1):
        missing = gap - (gain * move).sum(1)
        slope = (pull * (move < room)).sum(1)
        unfinished = (missing > precision * gap) & (slope > 0)
        if not unfinished.any():
            break
        level = torch.where(unfinished, level + missing / slope, level)
        move = torch.minimum(level[:, None] * pace, room)
    return move


def filling(gain: Tensor, room: Tensor, gap: Tensor, worth: Tensor) -> Tensor:
    """Moves by the full room in descending order of `worth`, until the total gain equals the gap."""
    order = worth.argsort(dim=1, descending=True, stable=True)
    gain, room = gain.gather(1, order), room.gather(1, order)
    before = (gain * room).cumsum(1) - gain * room
    needed = (gap[:, None] - before).clamp(min=0) / gain.where(gain > 0, 1.0)
    return torch.zeros_like(room).scatter(1, order, torch.minimum(needed, room))
