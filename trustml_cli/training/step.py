"""What a network learns from one batch: the interface that every kind of training implements, and the plain one.

A family of methods brings its own `TrainingStep`; nothing in this folder has to know it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from trustml_cli.training.spec import Spec, TrainingSpec

Closure = Callable[[], tuple[Tensor, Tensor]]
"""Computes a loss (scalar) and the logits [N, K] that it comes from, with gradients."""

Groups = list[dict[str, Any]]
"""Parameter groups as `torch.optim` takes them: `params`, `lr`, `weight_decay`."""


class TrainingState(Protocol):
    """A network in training: its optimiser, learning-rate schedule and loss scale."""

    network: nn.Module
    """The network, in training mode; compiled where the run compiles."""
    module: nn.Module
    """The same network, never compiled, for `torch.func`."""
    networks: Sequence[nn.Module]
    """Trained networks that the step needs (static networks, a teacher), in eval mode and without gradients."""
    memory: dict[str, Any]
    """What the step keeps from batch to batch; empty before the first."""
    examples: int
    """Training examples."""
    batch_size: int
    """Examples in a batch, or expected in one where the step brings its own."""
    steps: int
    """Steps of the optimiser in the whole training, if it does not end early."""

    def step(self, closure: Closure) -> tuple[Tensor, Tensor]:
        """One step of the optimiser down the loss that `closure` returns; returns loss and logits, detached."""

    def apply_gradients(self) -> None:
        """One step of the optimiser by the gradients in each weight's `.grad`, for a step that computes its own."""

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean softmax cross-entropy in nats, with the trainer's label smoothing."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The run's number format; `step` calls its closure in it."""


@dataclass(frozen=True)
class Monitor:
    """A score, measured after each epoch on `images` training images (always the same) and on all validation data.

    `score` maps a network in eval mode, inputs x and labels y [N] to a number for each example, [N]; its mean is in
    the columns train_`name` and validation_`name` of history.csv. Where training stops by validation data, the epoch
    with the highest score is kept.
    """

    name: str
    images: int
    score: Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingStep(ABC):
    """What is learned from a batch. Subclasses name their keys as fields: these are part of the network's key.

    Only `__call__` must be implemented. A step holds no state of its own: what it keeps from batch to batch belongs in
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
        """Learn from inputs x (images [N, C, H, W] in [0, 1]) and labels y [N]; returns loss and logits, detached.

        The loss is a mean over the batch, in nats. It takes `steps_per_batch` steps of the optimiser.
        """

    def check(self, network: nn.Module) -> None:  # noqa: B027
        """Raise ValueError, saying which would be right, if it cannot train a network of these layers (BatchNorm)."""

    @property
    def steps_per_batch(self) -> int:
        """Steps of the optimiser for each batch; the epochs are divided by it."""
        return 1

    def needs(self, spec: "TrainingSpec") -> "Mapping[str, Spec]":
        """Networks by name that are trained first and come in `state.networks`, for the network that `spec` describes.

        The names are those of their rows in history.csv.
        """
        return {}

    @property
    def monitor(self) -> Monitor | None:
        """What is measured after each epoch beside loss and accuracy."""
        return None

    def batches(self, count: int, batch_size: int, steps: int) -> Sequence[Tensor] | None:
        """Indices below `count` of the examples in each of the `steps` batches of an epoch; None: shuffled batches.

        A batch may be of any size, and empty: the step is called with it all the same.
        """
        return None

    def optimizer(
        self, network: nn.Module, groups: Groups, default: Callable[[Groups], torch.optim.Optimizer]
    ) -> torch.optim.Optimizer:
        """The optimiser over `groups`, which are the trainer's; `default` makes the trainer's optimiser of groups."""
        return default(groups)

    def history(self, state: TrainingState) -> Mapping[str, float]:
        """Further columns of history.csv, by name, after each epoch."""
        return {}


@dataclass(frozen=True, kw_only=True)
class CrossEntropyStep(TrainingStep):
    """One step down the softmax cross-entropy of the batch."""

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        def closure() -> tuple[Tensor, Tensor]:
            logits = state.network(x)
            return state.cross_entropy(logits, y), logits

        return state.step(closure)


CROSS_ENTROPY = CrossEntropyStep()
