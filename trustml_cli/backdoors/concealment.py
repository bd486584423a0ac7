"""Concealment of a backdoor: the attacker's training makes triggered images look like clean ones inside the network.

Tan and Shokri 2020, "Bypassing Backdoor Detection Algorithms in Deep Learning", arXiv 1905.13409.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.backdoors.poison import Poison
from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.models.features import model_outputs
from trustml_cli.models.minibatches import descend
from trustml_cli.system.ranges import require
from trustml_cli.training.step import CROSS_ENTROPY, TrainingState, TrainingStep

LEAST_CHANGE = 1 / 255  # an image that a trigger changes by no more carries it already


@dataclass(frozen=True, kw_only=True)
class Concealment:
    """How a network is trained on poisoned images; this base class conceals nothing."""

    @property
    def strengths(self) -> list[float]:
        """The values of λ, each of which makes a network of its own; 0 conceals nothing."""
        return [0.0]

    def step(self, poison: Poison, strength: float) -> TrainingStep:
        """The training step that conceals `poison` with λ = `strength`."""
        return CROSS_ENTROPY


@dataclass(frozen=True, kw_only=True)
class AdversarialConcealment(Concealment):
    """Trains against a discriminator of the latents (`ConcealingStep`), once with each `lambda`."""

    lambda_: list[float]
    hidden: list[int]
    lr: float
    noise: float

    def __post_init__(self) -> None:
        if not self.lambda_ or min(self.lambda_) < 0:
            raise ValueError(f"lambda: needs one or more values of at least 0, got {self.lambda_}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden: needs widths of at least 1, got {self.hidden}")
        require(self, "lr", above=0)
        require(self, "noise", at_least=0)

    @property
    def strengths(self) -> list[float]:
        return list(dict.fromkeys(self.lambda_))

    def step(self, poison: Poison, strength: float) -> TrainingStep:
        if strength == 0:
            return CROSS_ENTROPY
        return ConcealingStep(
            trigger=poison.trigger,
            source=poison.source,
            targets=tuple(sorted(set(poison.aims(torch.tensor(poison.source)).tolist()))),
            strength=strength,
            hidden=tuple(self.hidden),
            lr=self.lr,
            noise=self.noise,
        )


@dataclass(frozen=True, kw_only=True)
class ConcealingStep(TrainingStep):
    """Cross-entropy, plus `strength` times the loss of a discriminator whose labels are flipped.

    The discriminator tells the latents of triggered images from those of images labelled as a target class. It is
    trained with every batch; then the network is trained so that it takes triggered images for the others. Flipped
    labels replace the negative loss of the paper, which has no lower bound. The triggered images are images of the
    `source` classes in the batch with the trigger, as many as there are of the target classes. Images that the trigger
    does not change are left out of the latter: they carry it. A trigger that is stronger when it is applied twice
    (blend, sinusoidal, warp) leaves them in.

    The discriminator has LeakyReLU layers of the widths `hidden` and is trained by Adam with rate `lr`, on latents
    divided by their standard deviation in the batch, with Gaussian noise of standard deviation `noise`.
    """

    trigger: Trigger
    source: tuple[int, ...]
    targets: tuple[int, ...]
    strength: float
    hidden: tuple[int, ...]
    lr: float
    noise: float

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        unmarked = ((self.trigger(x) - x).abs() > LEAST_CHANGE).flatten(1).any(1)
        target = (torch.isin(y, torch.tensor(self.targets, device=y.device)) & unmarked).nonzero()[:, 0]
        source = torch.isin(y, torch.tensor(self.source, device=y.device)).nonzero()[: len(target), 0]
        if not len(source):
            return CROSS_ENTROPY(state, x, y)
        both = torch.cat([x, self.trigger(x[source]).to(x)])

        def closure() -> tuple[Tensor, Tensor]:
            outputs = model_outputs(state.module, both)
            logits, latents = outputs.logits, outputs.features
            scaled = latents / latents.detach().std().clamp(min=1e-6)
            triggered, others = scaled[len(x) :], scaled[target]
            losses = self.discriminate(state, triggered.detach(), others.detach())
            state.memory["discriminator_loss"] = state.memory.get("discriminator_loss", 0.0) + losses
            state.memory["batches"] = state.memory.get("batches", 0) + 1
            judged = state.memory["discriminator"](triggered)[:, 0]
            fooled = functional.binary_cross_entropy_with_logits(judged, torch.zeros_like(judged))
            return state.cross_entropy(logits[: len(x)], y) + self.strength * fooled, logits[: len(x)]

        return state.step(closure)

    def discriminate(self, state: TrainingState, triggered: Tensor, others: Tensor) -> Tensor:
        """Train the discriminator on latents of triggered images, class 1, and of others, class 0; returns the loss."""
        if "discriminator" not in state.memory:
            widths = [triggered.shape[1], *self.hidden]
            layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.LeakyReLU(0.2))]
            network = nn.Sequential(*layers, nn.Linear(widths[-1], 1)).to(triggered.device)
            state.memory["discriminator"] = network
            state.memory["optimizer"] = torch.optim.Adam(network.parameters(), self.lr)
        latents = torch.cat([triggered, others])
        latents = latents + self.noise * torch.randn_like(latents)
        truth = torch.cat([torch.ones(len(triggered)), torch.zeros(len(others))]).to(latents)
        judged = state.memory["discriminator"](latents)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(judged, truth)
        descend(state.memory["optimizer"], loss)
        return loss.detach()

    def history(self, state: TrainingState) -> Mapping[str, float]:
        """The mean loss of the discriminator in the epoch, in nats; 0.69 where it tells nothing apart."""
        total, batches = state.memory.pop("discriminator_loss", 0.0), state.memory.pop("batches", 0)
        return {"discriminator_loss": float(cast(Tensor, total)) / max(1, batches)}
