"""The loss surface around an image, along the gradient direction and a random direction.

Where the loss is flat or strongly curved near the image, gradients are uninformative (Tramèr et al. 2018, arXiv
1705.07204, figure 1).
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
    """Loss (nats) and logit margin of the true class on a grid around one image: [points, points], on the CPU.

    Row i, column j is the image plus `offsets[i]` times a random direction plus `offsets[j]` times the gradient's.
    """

    offsets: Tensor
    loss: Tensor
    margin: Tensor
    label: int


@torch.no_grad()
def loss_surface(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, norm: Norm, points: int) -> Surface:
    """The loss surface around image x [1, …] of class y [1], for offsets from −`epsilon` to `epsilon`.

    Both directions have size 1 in `norm`; the random one is drawn from torch's global generator. The images are not
    clipped to [0, 1], which would distort the surface.
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
