"""Neural attention distillation: the fine-tuned network as a teacher of where to look.

Li, Lyu, Koren, Lyu, Li and Ma 2021, "Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural
Networks", arXiv 2101.05930.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.data.dataset import Dataset
from trustml_cli.forgetting.cleaner import Backdoored, Cleaner, check_factors
from trustml_cli.system.ranges import require
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.step import TrainingState, TrainingStep


@dataclass(frozen=True, kw_only=True)
class Nad(Cleaner):
    """Fine-tunes the backdoored network, and then a second copy of it whose attention is drawn to that of the first.

    Loss of the second: cross-entropy + β·Σ over convolutions ‖A_student − A_teacher‖², see `attention`. β is chosen
    among `betas`, smallest first; the learning rate of both is `lr_factor` times that of the trainer.
    """

    betas: list[float]
    lr_factor: float

    def __post_init__(self) -> None:
        check_factors("betas", self.betas)
        require(self, "lr_factor", above=0)
        super().__post_init__()

    @property
    def settings(self) -> Sequence[float]:
        return self.betas

    def check(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        if not any(isinstance(layer, nn.Conv2d) for layer in network.modules()):
            raise ValueError("needs a network with convolutions; choose another model, or leave this cleaner out")

    def spec(self, backdoored: Backdoored, clean: Dataset, setting: float) -> TrainingSpec:
        tuned = self.tuned(backdoored, clean, self.lr_factor)
        return replace(tuned, step=AttentionStep(beta=setting), needs={"nad teacher": tuned})


@dataclass(frozen=True, kw_only=True)
class AttentionStep(TrainingStep):
    """Cross-entropy + `beta`·Σ over convolutions of the mean ‖A_student − A_teacher‖² over the batch."""

    beta: float

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (teacher,) = state.networks
        with torch.no_grad(), state.autocast(), convolution_outputs(teacher) as taught:
            teacher(x)

        def closure() -> tuple[Tensor, Tensor]:
            with convolution_outputs(state.module) as made:
                logits = state.module(x)
            apart = sum(
                (attention(own) - attention(other)).square().sum(1).mean()
                for own, other in zip(made, taught, strict=True)
            )
            return state.cross_entropy(logits, y) + self.beta * apart, logits

        return state.step(closure)


def attention(maps: Tensor) -> Tensor:
    """The attention map of each image: Σ over channels of F², flattened and of length 1; [N, H·W]."""
    return functional.normalize(maps.square().sum(1).flatten(1), dim=1)


@contextmanager
def convolution_outputs(network: nn.Module) -> Iterator[list[Tensor]]:
    """The outputs [N, C, H, W] of all convolutions, in the order of their calls while this lasts."""
    made: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, given, output: made.append(output))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()
