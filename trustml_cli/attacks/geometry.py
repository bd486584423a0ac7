"""Balls around images: the steepest step, the way back into the ball, and a random point in it.

Images x have shape [N, …] and values in [0, 1]; `epsilon` is in pixel units (L0: the number of values that change).
Everything is done image by image.
"""

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm


def lengths(values: Tensor, order: float = 2) -> Tensor:
    """The `order`-norm (1, 2, inf) of each row of `values` [N, …], over all else: [N].

    Computed on the rows over their largest entry: squares of gradients as small as 1e-23 round to 0 in float32, and
    those of entries beyond 1e19 to infinity.
    """
    largest, scaled = over_largest(values)
    length: Tensor = torch.linalg.vector_norm(scaled, order, dim=1)
    return largest * length


def normalised(values: Tensor, order: float = 2) -> Tensor:
    """Each row of `values` [N, …] over its `order`-norm, however small or large that is; a row of zeros stays."""
    _, scaled = over_largest(values)
    length: Tensor = torch.linalg.vector_norm(scaled, order, dim=1, keepdim=True)
    return (scaled / length.where(length > 0, 1.0)).view_as(values)


def over_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """The size of the largest entry of each row [N], and the rows [N, D] over it; a row of zeros stays."""
    flat = values.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    return largest[:, 0], flat / largest.where(largest > 0, 1.0)


def unit_step(gradient: Tensor, norm: Norm) -> Tensor:
    """The step of size 1 in `norm` along which a linear loss rises most; zero where the gradient is.

    In L1 it changes the value with the largest gradient alone (several that are equally large share it).
    """
    if norm is Norm.linf:
        return gradient.sign()
    if norm is Norm.l2:
        return normalised(gradient)
    if norm is Norm.l1:
        size = gradient.flatten(1).abs()
        largest = (size == size.amax(1, keepdim=True)) & (size > 0)
        share = largest / largest.sum(1, keepdim=True).clamp(min=1)
        return share.to(gradient.dtype).view_as(gradient) * gradient.sign()
    raise ValueError(f"norm: must be linf, l2, l1, got {norm.value}")


def ascend(x: Tensor, gradient: Tensor, size: float, norm: Norm) -> Tensor:
    """X after a step of `size` along which a linear loss rises most.

    In L∞ and L2 it may leave [0, 1]. An L1 step that ends at the edge of [0, 1] would waste most of its size; so it
    fills one value after the other, the largest gradients first: the steepest step within the L1 ball and [0, 1]
    (Croce and Hein 2021, arXiv 2103.01208).
    """
    if norm is not Norm.l1:
        return x + size * unit_step(gradient, norm)
    slope, flat = gradient.flatten(1), x.flatten(1)
    room = torch.where(slope > 0, 1 - flat, flat).where(slope != 0, 0.0)
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    sorted_room = room.gather(1, order)
    spent_before = sorted_room.cumsum(1) - sorted_room
    spent = torch.minimum(sorted_room, (size - spent_before).clamp(min=0))
    move = torch.zeros_like(flat).scatter(1, order, spent)
    return x + (move * slope.sign()).view_as(x)


def project(x_adv: Tensor, x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """The point of the ball around x that is nearest to x_adv (in L1 by sorting: Duchi et al. 2008), cut to [0, 1].

    The cut moves towards x, so that the result is in both; it need not be the nearest point of both.
    """
    if norm is Norm.linf:
        return x_adv.clamp(x - epsilon, x + epsilon).clamp(0, 1)
    return (x + onto_ball(x_adv - x, epsilon, norm)).clamp(0, 1)


def onto_ball(change: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """The nearest perturbations to `change` [N, …] of a size of at most `epsilon`."""
    flat = change.flatten(1)
    if norm is Norm.linf:
        flat = flat.clamp(-epsilon, epsilon)
    elif norm is Norm.l2:
        length = lengths(flat)[:, None]
        flat = torch.where(length > epsilon, epsilon * normalised(flat), flat)
    elif norm is Norm.l1:
        flat = onto_l1_ball(flat, epsilon)
    else:
        kept = flat.abs().argsort(dim=1, descending=True, stable=True)[:, : int(epsilon)]
        flat = torch.zeros_like(flat).scatter(1, kept, flat.gather(1, kept))
    return flat.view_as(change)


def onto_l1_ball(change: Tensor, epsilon: float) -> Tensor:
    """The nearest points to the rows of `change` [N, D] with an L1 norm of at most `epsilon`.

    Every value comes nearer to zero by one threshold, which sorting finds (Duchi et al. 2008, figure 1).
    """
    size = change.abs()
    falling = size.sort(dim=1, descending=True).values.double()
    excess = falling.cumsum(1) - epsilon
    count = torch.arange(1, size.shape[1] + 1, device=size.device)
    kept = (falling * count > excess).sum(1, keepdim=True).clamp(min=1)
    threshold = (excess.gather(1, kept - 1) / kept).to(size.dtype)
    outside = excess[:, -1:] > 0
    return torch.where(outside, (size - threshold).clamp(min=0) * change.sign(), change)


def random_start(x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """A point drawn uniformly from the ball around each image and cut to [0, 1], from torch's global random numbers.

    L1 after Barthe et al. 2005: exponential variables of random sign over the sum of one more of them. L0: so many
    values at random places, each drawn from [0, 1].
    """
    flat = x.flatten(1)
    count, values = flat.shape
    if norm is Norm.linf:
        change = epsilon * (2 * torch.rand_like(flat) - 1)
    elif norm is Norm.l2:
        direction = torch.randn_like(flat)
        radius = epsilon * torch.rand_like(flat[:, :1]).pow(1 / values)
        change = radius * normalised(direction)
    elif norm is Norm.l1:
        sizes = torch.empty(count, values + 1, dtype=x.dtype, device=x.device).exponential_()
        change = epsilon * sizes[:, 1:] / sizes.sum(1, keepdim=True) * torch.randn_like(flat).sign()
    else:
        places = torch.rand_like(flat).argsort(dim=1)[:, : int(epsilon)]
        drawn = torch.rand_like(flat).gather(1, places)
        return flat.scatter(1, places, drawn).view_as(x)
    return (x + change.view_as(x)).clamp(0, 1)
