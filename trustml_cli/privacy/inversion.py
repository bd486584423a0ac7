"""Model inversion: an image of a class from a network's outputs.

Fredrikson, Jha and Ristenpart 2015 (ACM CCS, doi 10.1145/2810103.2813677): gradient descent by the pixels on the loss
of the class, with a prior. The prior here is total variation (Mahendran and Vedaldi 2015, arXiv 1412.0035), and the
network sees the image moved a little in each step, so that what it finds holds for more than one position of a pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.inference import gradient_wrt, logits_of


@dataclass(frozen=True)
class Hint:
    """What is known of images: `values` = `observe`(images), up to a mean squared error that is weighed by `weight`."""

    observe: Callable[[Tensor], Tensor]
    values: Tensor
    weight: float


def invert(
    model: nn.Module | None,
    start: Tensor,
    target: Tensor,
    *,
    steps: int,
    lr: float,
    tv: float,
    shift: int,
    hint: Hint | None = None,
) -> Tensor:
    """Images [N, C, H, W] in [0, 1] that `model` takes for the classes `target` [N], from the images `start`.

    Each minimises the sum of its cross-entropy in nats, `tv` times its total variation (`roughness`), and the error of
    the hint, by `steps` steps of Adam at rate `lr`. The network sees it shifted by up to `shift` pixels. Without a
    `model` the cross-entropy is left out.
    """
    x = start.clone()
    optimizer = torch.optim.Adam([x], lr=lr)
    for _ in range(steps):
        shown = x.detach().requires_grad_(True)
        loss = tv * roughness(shown).sum()
        if model is not None:
            logits = logits_of(model, moved(shown, shift))
            loss = loss + functional.cross_entropy(logits, target, reduction="sum")
        if hint is not None:
            error = (hint.observe(shown) - hint.values).square().flatten(1).mean(1)
            loss = loss + hint.weight * error.sum()
        x.grad = gradient_wrt(shown, loss)
        optimizer.step()
        x.data.clamp_(0, 1)
    return x.detach()


def roughness(x: Tensor) -> Tensor:
    """Total variation of images [N, C, H, W]: the mean absolute difference of neighbouring pixels, [N]."""
    down, right = (x.diff(dim=dim).abs().flatten(1).mean(1) for dim in (2, 3))
    return down + right


def moved(x: Tensor, shift: int) -> Tensor:
    """Images x, all shifted by the same random number of pixels, up to `shift` in each direction, edges repeated."""
    if not shift:
        return x
    height, width = x.shape[2:]
    down, right = torch.randint(2 * shift + 1, (2,)).tolist()
    padded = functional.pad(x, (shift,) * 4, mode="replicate")
    return padded[:, :, down : down + height, right : right + width]


def blurred(x: Tensor, deviation: float) -> Tensor:
    """Images x [N, C, H, W] after a Gaussian blur of this standard deviation in pixels, edges repeated."""
    reach = max(1, round(3 * deviation))
    away = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = (-0.5 * (away / deviation).square()).softmax(0)
    padded = functional.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1)).view_as(x)


def upper_half(x: Tensor) -> Tensor:
    """The upper half of images [N, C, H, W]."""
    return x[:, :, : x.shape[2] // 2]


def correlation(x: Tensor, others: Tensor) -> Tensor:
    """Pearson's correlation over the pixels of each of N images with each of M others, [N, M]; 0 for a flat image."""
    first, second = (
        functional.normalize(each.flatten(1) - each.flatten(1).mean(1, keepdim=True)) for each in (x, others)
    )
    return first @ second.T
