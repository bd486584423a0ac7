"""Norm balls around images: steepest ascent steps, projections and random points.

Images x have shape [N, …] and values in [0, 1]; `epsilon` is in pixel units (L0: the number of values that change).
All functions treat each image independently.
"""

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm, per_image


def lengths(values: Tensor, order: float = 2) -> Tensor:
    """The `order`-norm (1, 2, inf) of each row of `values` [N, …] over all other axes, [N].

    Rows are divided by their largest entry first, because in float32 squares of values below 1e-23 underflow to 0 and
    squares of values above 1e19 overflow.
    """
    largest, scaled = over_largest(values)
    length: Tensor = torch.linalg.vector_norm(scaled, order, dim=1)
    return largest * length


def normalised(values: Tensor, order: float = 2) -> Tensor:
    """Divide each row of `values` [N, …] by its `order`-norm without under- or overflow; a zero row stays zero."""
    _, scaled = over_largest(values)
    length: Tensor = torch.linalg.vector_norm(scaled, order, dim=1, keepdim=True)
    return (scaled / length.where(length > 0, 1.0)).view_as(values)


def over_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest absolute value of each row [N], and the rows [N, D] divided by it; a zero row stays zero."""
    flat = values.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    return largest[:, 0], flat / largest.where(largest > 0, 1.0)


def unit_step(gradient: Tensor, norm: Norm) -> Tensor:
    """The steepest ascent step of size 1 in `norm`; zero where the gradient is zero.

    In L1 it changes only the value with the largest absolute gradient (ties share the step equally).
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
    """The images x after a steepest ascent step of `size` in `norm`.

    In L∞ and L2 the result may leave [0, 1]. Clipping an L1 step to [0, 1] would waste most of its size. So the L1
    step moves one value after the other to 0 or 1, the largest gradients first: the steepest step within the
    intersection of the L1 ball and [0, 1] (Croce and Hein 2021, arXiv 2103.01208).
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


def project(x_adv: Tensor, x: Tensor, epsilon: float | Tensor, norm: Norm) -> Tensor:
    """The images x_adv, moved into the ball around x and into [0, 1]; `epsilon` may differ between images, [N].

    In L∞ and L1 the result is the nearest point of the intersection. In L2 the projection onto the ball is clipped to
    [0, 1]; clipping moves towards x, so the result is in both sets, but need not be the nearest point of them.
    """
    radius = radii(epsilon, x)
    if norm is Norm.linf:
        radius = per_image(radius, x)
        return x_adv.clamp(x - radius, x + radius).clamp(0, 1)
    change = x_adv - x
    room = torch.where(change > 0, 1 - x, x) if norm is Norm.l1 else None
    return (x + onto_ball(change, radius, norm, room)).clamp(0, 1)


def radii(epsilon: float | Tensor, x: Tensor) -> Tensor:
    """`epsilon` as one value for each of the images x [N, …]: [N]."""
    return epsilon if isinstance(epsilon, Tensor) else torch.full_like(x.flatten(1)[:, 0], epsilon)


def onto_ball(change: Tensor, epsilon: float | Tensor, norm: Norm, room: Tensor | None = None) -> Tensor:
    """The projection of perturbations `change` [N, …] onto the ball of radius `epsilon` (a number or [N]) around 0.

    In L1, `room` bounds the size of each value further.
    """
    flat, radius = change.flatten(1), radii(epsilon, change)[:, None]
    if norm is Norm.linf:
        flat = flat.clamp(-radius, radius)
    elif norm is Norm.l2:
        length = lengths(flat)[:, None]
        flat = torch.where(length > radius, radius * normalised(flat), flat)
    elif norm is Norm.l1:
        flat = onto_l1_ball(flat, radius, torch.full_like(flat, torch.inf) if room is None else room.flatten(1))
    else:
        place = flat.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        flat = flat.where(place < radius.floor(), 0.0)
    return flat.view_as(change)


def onto_l1_ball(change: Tensor, radius: Tensor, room: Tensor) -> Tensor:
    """The projection of the rows of `change` [N, D] onto the L1 ball of `radius` [N, 1], within ± `room` [N, D].

    The solution is min(max(|c| − t, 0), room) with the sign of c, for one threshold t ≥ 0 in each row. Its L1 norm is a
    piecewise linear function of t, whose slope changes at |c| and at |c| − room; sorting these finds t. Without a limit
    on the values it is the projection of Duchi et al. 2008; with it, that of Croce and Hein 2021, arXiv 2103.01208.
    """
    size = change.abs()
    bends = torch.cat([size, (size - room).clamp(min=0)], 1).double()
    slopes = torch.ones_like(bends)
    slopes[:, size.shape[1] :] = -1
    bends, order = bends.sort(dim=1, descending=True, stable=True)  # of equal ones, slopes of +1 first
    slopes = slopes.gather(1, order)
    slope, offset = slopes.cumsum(1), (slopes * bends).cumsum(1)  # for t down to the next bend: offset − slope·t
    short = offset - slope * bends < radius
    last = short.sum(1, keepdim=True).clamp(min=1) - 1
    steep = slope.gather(1, last)
    threshold = ((offset.gather(1, last) - radius) / steep.where(steep > 0, 1.0)).clamp(min=0)
    inside = torch.minimum(size, room).sum(1, keepdim=True, dtype=torch.double) <= radius
    threshold = threshold.where(~inside, 0.0).to(size.dtype)
    return torch.minimum((size - threshold).clamp(min=0), room) * change.sign()


def random_start(x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """A uniformly random point of the ball around each image, clipped to [0, 1], from torch's global generator.

    L1 follows Barthe et al. 2005: exponential variables of random sign, divided by the sum of these and one more. L0:
    `epsilon` values at random positions, each drawn from [0, 1].
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
