"""The loss around an image, in the direction that an attack takes and in a random one.

Where it is flat and then breaks off, or is folded just around the image, gradients point nowhere useful (Tramèr et al.
2018, arXiv 1705.07204, figure 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trustml_cli.attacks.attack import Norm, input_gradient
from trustml_cli.attacks.geometry import unit_step
from trustml_cli.attacks.losses import log_odds, logit_margin
from trustml_cli.models.inference import logits_of


@dataclass(frozen=True)
class Surface:
    """Loss (nats) and margin of the right class on a square grid around one image: [points, points], on the CPU.

    Row i, column j is the image moved by `offsets[i]` in a random direction and by `offsets[j]` in the gradient's.
    """

    offsets: Tensor
    loss: Tensor
    margin: Tensor
    label: int


@torch.no_grad()
def loss_surface(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, norm: Norm, points: int) -> Surface:
    """The surface around image x [1, …] of class y [1], `epsilon` far to each side.

    Both directions have size 1 in `norm`; the random one is drawn from torch's global random numbers. The images are
    not cut to [0, 1], which would fold the surface.
    """
    uphill = unit_step(input_gradient(model, x, y), norm)
    aside = unit_step(torch.randn_like(x), norm)
    offsets = torch.linspace(-epsilon, epsilon, points, device=x.device)
    losses, margins = [], []
    for offset in offsets:
        row = x + offset * aside + offsets.view(-1, *(1,) * (x.dim() - 1)) * uphill
        logits = logits_of(model, row)
        losses.append(softplus(log_odds(logits, y.expand(points), None)))  # the cross-entropy, also where it is tiny
        margins.append(-logit_margin(logits, y.expand(points), None))
    return Surface(offsets.cpu(), torch.stack(losses).cpu(), torch.stack(margins).cpu(), int(y))
