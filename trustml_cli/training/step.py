"""The training step on one batch: the interface of all training methods, and plain cross-entropy training.

A family of methods defines its own `TrainingStep` in its own folder.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Closure = Callable[[], tuple[Tensor, Tensor]]
"""Computes a loss (scalar) and the logits [N, K] that it is computed from, with gradients."""

Groups = list[dict[str, Any]]
"""Parameter groups as `torch.optim` takes them: `params`, `lr`, `weight_decay`."""


class TrainingState(Protocol):
    """The training state that a step works on: network, optimiser, schedule and gradient scaler."""

    network: nn.Module
    """The network, in training mode; compiled if the run compiles networks."""
    module: nn.Module
    """The same network, never compiled, for `torch.func`."""
    networks: Sequence[nn.Module]
    """Trained networks that the step needs (static networks, a teacher), frozen and in eval mode."""
    memory: dict[str, Any]
    """State that the step keeps from batch to batch; empty before the first."""
    examples: int
    """Number of training examples."""
    batch_size: int
    """Examples in a batch, or the expected number if the step samples its own batches."""
    steps: int
    """Optimiser steps in the whole training, unless it stops early."""

    def step(self, closure: Closure) -> tuple[Tensor, Tensor]:
        """Take one optimiser step on the loss that `closure` returns; returns loss and logits, detached."""

    def apply_gradients(self) -> None:
        """Take one optimiser step with the gradients in each weight's `.grad`, for a step that computes its own."""

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean softmax cross-entropy in nats, with the trainer's label smoothing."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The autocast context of the run's precision; `step` calls its closure in it."""


@dataclass(frozen=True)
class Monitor:
    """A score, measured after each epoch on `images` training images (always the same) and on all validation data.

    `score` maps a network in eval mode, inputs x and labels y [N] to a number for each example, [N]; its mean is in
    the columns train_`name` and validation_`name` of history.csv. With early stopping, the epoch with the highest
    validation score is kept.
    """

    name: str
    images: int
    score: Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingStep(ABC):
    """The training update on one batch. Subclasses declare their keys as fields: these are part of the store key.

    Only `__call__` must be implemented. A step has no state: what it keeps from batch to batch belongs in
    `state.memory`, so that one step can train many networks.

        @dataclass(frozen=True, kw_only=True)
        class Distillation(TrainingStep):
            temperature: float

            def __call__(self, state, x, y):
                def closure():
                    logits, (teacher,) = state.network(x), state.networks
                    soft = (teacher(x) / self.temperature).softmax(1)
                    return self.temperature**2 * cross_entropy(logits / self.temperature, soft), logits

                return state.step(closure)
    """

    @abstractmethod
    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Train on inputs x (images [N, C, H, W] in [0, 1]) and labels y [N]; returns loss and logits, detached.

        The loss is the mean over the batch, in nats. The call takes `steps_per_batch` optimiser steps.
        """

    def check(self, network: nn.Module) -> None:  # noqa: B027
        """Raise ValueError, with a remedy, if the step cannot train a network with these layers (BatchNorm)."""

    @property
    def steps_per_batch(self) -> int:
        """Optimiser steps for each batch; the number of epochs is divided by it."""
        return 1

    @property
    def takes_features(self) -> bool:
        """Whether it calls the network alone, so that it may be given fixed features in place of the inputs."""
        return False

    def needs(self, spec: Any) -> Mapping[str, Any]:
        """Specs, by name, of networks that are trained before that of `spec` and passed in `state.networks`.

        Each is a `TrainingSpec` or a `WrappedSpec` of `training/spec.py`, which imports this module. The names are
        those of their rows in history.csv.
        """
        return {}

    @property
    def monitor(self) -> Monitor | None:
        """A score measured after each epoch beside loss and accuracy, if any."""
        return None

    def batches(self, count: int, batch_size: int, steps: int) -> Sequence[Tensor] | None:
        """Indices below `count` of the examples in each of the `steps` batches of an epoch; None: shuffled batches.

        Batches may differ in size and may be empty: the step is called with them all the same.
        """
        return None

    def optimizer(
        self, network: nn.Module, groups: Groups, default: Callable[[Groups], torch.optim.Optimizer]
    ) -> torch.optim.Optimizer:
        """The optimiser for the trainer's parameter `groups`; `default` makes the trainer's optimiser for groups."""
        return default(groups)

    def history(self, state: TrainingState) -> Mapping[str, float]:
        """Further columns of history.csv, by name, computed after each epoch."""
        return {}


@dataclass(frozen=True, kw_only=True)
class CrossEntropyStep(TrainingStep):
    """One optimiser step on the mean softmax cross-entropy of the batch."""

    @property
    def takes_features(self) -> bool:
        return True

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        def closure() -> tuple[Tensor, Tensor]:
            logits = state.network(x)
            return state.cross_entropy(logits, y), logits

        return state.step(closure)


CROSS_ENTROPY = CrossEntropyStep()
