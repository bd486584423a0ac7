"""Parameters of networks that are one affine function of the pixels, whatever layers they consist of."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from trustml_cli.system.hardware import is_out_of_memory

PROBES = 16
TOLERANCE = 1e-6  # relative to the spread of the logits; the arithmetic is in float64


def linear_parameters(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Weights and bias [K, D + 1] of a linear `network` in pixel space, float64 on the CPU.

    Normalisation and all other layers are folded in: the weights are the gradients of the logits at zero, and the bias
    is their value there. Raises ValueError where these parameters do not reproduce the logits of random inputs
    [N, *shape] in [0, 1], that is, where the network is not linear.
    """
    network = deepcopy(network).double().cpu().eval().requires_grad_(False)
    zero = torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        try:
            bias = network(zero)[0]
        except RuntimeError as error:  # it computes in another precision by itself
            if is_out_of_memory(error):
                raise
            raise ValueError("does not compute in float64") from error
        if not bias.requires_grad:
            raise ValueError("is not linear: it gives no gradients")
        rows = [torch.autograd.grad(logit, zero, retain_graph=True, allow_unused=True)[0] for logit in bias]
    weights = torch.stack([torch.zeros_like(zero) if row is None else row for row in rows]).flatten(1)
    probes = torch.rand(PROBES, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits, bias = network(probes), bias.detach()
    spread = (logits - logits.mean(0)).abs().max()  # relative to it, because a deep network's logits may hardly vary
    if not torch.allclose(logits, probes.flatten(1) @ weights.T + bias, rtol=0, atol=TOLERANCE * spread):
        raise ValueError("is not linear")
    return torch.cat([weights, bias[:, None]], 1)
