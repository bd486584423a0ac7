"""DP-SGD: training with clipped gradients of single examples, and noise.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar and Zhang 2016, arXiv 1607.00133.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from trustml_cli.training.step import TrainingState, TrainingStep

AT_ONCE = 256  # examples whose gradients are in memory at a time


@dataclass(frozen=True, kw_only=True)
class DpSgdStep(TrainingStep):
    """A step along the sum of the examples' clipped gradients and Gaussian noise, divided by the expected batch size.

    Each gradient is scaled down to a Euclidean norm of at most `clip`; the noise has the standard deviation
    `noise_multiplier` · `clip`. Every example is in a batch with the same probability, independently of the others
    (Poisson sampling), as the accounting supposes. Noise and sampling come from the operating system, and cannot be
    drawn again; with `noise_seed` they can, and anybody who knows it can subtract the noise.
    """

    clip: float
    noise_multiplier: float
    noise_seed: int | None

    @property
    def takes_features(self) -> bool:
        return True

    def batches(self, count: int, batch_size: int, steps: int) -> Sequence[Tensor]:
        rate = min(1.0, batch_size / count)
        seeded = self.noise_seed is not None
        return [((torch.rand(count) if seeded else system_uniform(count)) < rate).nonzero()[:, 0] for _ in range(steps)]

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        weights = {name: weight for name, weight in state.module.named_parameters() if weight.requires_grad}
        total, norms, losses, logits = clipped_gradients(state.module, weights, x, y, self.clip)
        for name, weight in weights.items():
            noise = self.noise(state, weight) * (self.noise_multiplier * self.clip)
            weight.grad = (total[name] + noise) / state.batch_size
        state.memory["clipped"] = state.memory.get("clipped", 0) + int((norms > self.clip).sum())
        state.memory["seen"] = state.memory.get("seen", 0) + len(y)
        state.apply_gradients()
        return losses.mean() if len(y) else losses.sum(), logits

    def noise(self, state: TrainingState, weight: Tensor) -> Tensor:
        """Standard normal noise of the weight's shape."""
        if self.noise_seed is None:
            return system_normal(weight.numel()).to(weight).view_as(weight)
        if "random" not in state.memory:
            state.memory["random"] = torch.Generator().manual_seed(self.noise_seed)
        return torch.randn(weight.shape, generator=state.memory["random"]).to(weight)

    def history(self, state: TrainingState) -> Mapping[str, float]:
        """The share of the examples' gradients that were clipped in the epoch."""
        clipped, seen = state.memory.pop("clipped", 0), state.memory.pop("seen", 0)
        return {"clipped_share": clipped / max(1, seen)}


def clipped_gradients(
    module: nn.Module, weights: Mapping[str, Tensor], x: Tensor, y: Tensor, clip: float
) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """The sum over the examples of their gradients, each scaled to a norm of at most `clip`.

    Also returns the norms before [N], the losses [N] and the logits [N, K], all detached.
    """
    linear = only_linear(module, weights)
    called = linear_call(module, linear, x) if linear is not None and len(x) else None
    if linear is not None and called is not None:
        return clipped_gradients_of_linear(linear, *called, weights, y, clip)
    fixed = {name: weight.detach() for name, weight in weights.items()}

    def loss_of(weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits = functional_call(module, dict(weights), (x[None],))
        loss = functional.cross_entropy(logits, y[None])
        return loss, (loss.detach(), logits[0].detach())

    each = vmap(grad(loss_of, has_aux=True), in_dims=(None, 0, 0), randomness="different")
    total = {name: torch.zeros_like(weight) for name, weight in fixed.items()}
    norms, losses, logits = [x.new_zeros(0)], [x.new_zeros(0)], []
    for part, labels in zip(torch.split(x, AT_ONCE), torch.split(y, AT_ONCE), strict=True):
        if not len(part):  # a batch may be empty
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # of some layers, under vmap
            gradients, (loss, answers) = each(fixed, part, labels)
        norm = torch.stack([values.flatten(1).square().sum(1) for values in gradients.values()]).sum(0).sqrt()
        scale = (clip / norm.clamp(min=1e-12)).clamp(max=1)
        for name, values in gradients.items():
            total[name] += torch.tensordot(scale, values, dims=1)
        norms.append(norm)
        losses.append(loss)
        logits.append(answers)
    return total, torch.cat(norms), torch.cat(losses), torch.cat(logits) if logits else x.new_zeros(0, 1)


def only_linear(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Linear | None:
    """The layer in `module` that has all the `weights`, if it is a linear one."""
    trained = {id(weight) for weight in weights.values()}
    layers = [layer for layer in module.modules() if type(layer) is nn.Linear]
    return next((layer for layer in layers if {id(weight) for weight in layer.parameters()} == trained), None)


@torch.no_grad()
def linear_call(module: nn.Module, linear: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Input [N, D] and output [N, K] of `linear` for inputs x, if the output is what `module` returns."""
    calls: list[tuple[Tensor, Tensor]] = []
    hook = linear.register_forward_hook(lambda _, given, made: calls.append((given[0], made)))
    try:
        returned = module(x)
    finally:
        hook.remove()
    return calls[0] if len(calls) == 1 and calls[0][1] is returned and calls[0][0].dim() == 2 else None


def clipped_gradients_of_linear(
    linear: nn.Linear, features: Tensor, logits: Tensor, weights: Mapping[str, Tensor], y: Tensor, clip: float
) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """As `clipped_gradients`, where the weights are those of the layer that makes the logits from `features` [N, D].

    An example's gradient is the outer product of that by its logits with its features, so its norm is the product of
    theirs, and it need not be made (Goodfellow 2015, arXiv 1510.01799).
    """
    by_logits = logits.softmax(1) - functional.one_hot(y, logits.shape[1])
    ones = 1 if linear.bias is not None else 0  # the bias is the weight of a further feature, 1
    norms = by_logits.norm(dim=1) * (features.square().sum(1) + ones).sqrt()
    scaled = by_logits * (clip / norms.clamp(min=1e-12)).clamp(max=1)[:, None]
    sums = {id(linear.weight): scaled.T @ features, id(linear.bias): scaled.sum(0)}
    total = {name: sums[id(weight)] for name, weight in weights.items()}
    return total, norms, functional.cross_entropy(logits, y, reduction="none"), logits


def system_uniform(count: int) -> Tensor:
    """Random numbers in (0, 1) from the operating system's generator, float64 [count]."""
    bits = torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64) if count else torch.zeros(0).long()
    return ((bits & (2**53 - 1)).double() + 0.5) / 2**53


def system_normal(count: int) -> Tensor:
    """Standard normal random numbers from the operating system's generator, float64 [count] (Box and Muller 1958)."""
    pairs = system_uniform(2 * (-(-count // 2))).view(2, -1)
    radius, angle = (-2 * pairs[0].log()).sqrt(), 2 * pi * pairs[1]
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]
