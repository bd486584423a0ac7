"""Fine-pruning: remove channels that clean images do not use, then fine-tune.

Liu, Dolan-Gavitt and Garg 2018, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks", arXiv
1805.12185.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.forgetting.cleaner import Backdoored, Cleaner
from trustml_cli.models.features import named_outputs
from trustml_cli.system.ranges import require
from trustml_cli.training.predict import BATCH
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.step import CROSS_ENTROPY, TrainingState, TrainingStep


@dataclass(frozen=True, kw_only=True)
class FinePrune(Cleaner):
    """Silences a share of the channels of the last convolution, and fine-tunes the rest.

    The channels with the lowest mean activation on the clean images go first. The share is chosen among `shares`,
    smallest first; the learning rate is `lr_factor` times that of the trainer. A network without convolutions loses
    units of its last hidden layer.
    """

    shares: list[float]
    lr_factor: float

    def __post_init__(self) -> None:
        if not self.shares or min(self.shares) < 0 or max(self.shares) >= 1:
            raise ValueError(f"shares: must be numbers from 0 to below 1, at least one; got {self.shares}")
        require(self, "lr_factor", above=0)
        super().__post_init__()

    @property
    def settings(self) -> Sequence[float]:
        return self.shares

    def check(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        last_hidden(network, torch.full((2, *shape), 0.5))

    def spec(self, backdoored: Backdoored, clean: Dataset, setting: float) -> TrainingSpec:
        device = next(backdoored.network.parameters()).device
        x, _ = next(batches(clean.train.subset(torch.arange(min(2, len(clean.train)))), 2, device))
        name = last_hidden(backdoored.network, x)
        activation = mean_activation(backdoored.network, name, clean.train)
        idle = activation.argsort(stable=True)[: round(setting * len(activation))]
        step = PrunedStep(layer=name, channels=tuple(sorted(idle.tolist())))
        return replace(self.tuned(backdoored, clean, self.lr_factor), step=step)


@dataclass(frozen=True, kw_only=True)
class PrunedStep(TrainingStep):
    """A cross-entropy step of a network in which these `channels` of `layer` are zero."""

    layer: str
    channels: tuple[int, ...]

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        silence(state.module, self.layer, self.channels)
        answer = CROSS_ENTROPY(state, x, y)
        silence(state.module, self.layer, self.channels)
        return answer


def last_hidden(network: nn.Module, x: Tensor) -> str:
    """The name of the last convolution, or of the last linear layer but one, that is called for inputs x [N, …].

    Raises ValueError if there is neither.
    """
    called = named_outputs(network, x)
    convolutions: list[str] = [name for name, layer in called.items() if isinstance(layer, nn.Conv2d)]
    linear: list[str] = [name for name, layer in called.items() if isinstance(layer, nn.Linear)]
    if not (found := convolutions or linear[:-1]):
        raise ValueError("needs a network with a hidden layer; choose another model, or leave this cleaner out")
    return found[-1]


def with_norm(network: nn.Module, name: str) -> list[nn.Module]:
    """The layer called `name` and, where one is defined right after it, its BatchNorm."""
    layers = [layer for layer in network.modules() if not list(layer.children())]
    layer = network.get_submodule(name)
    after = layers[layers.index(layer) + 1 :][:1]
    return [layer, *(each for each in after if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d))]


@torch.no_grad()
def mean_activation(network: nn.Module, name: str, split: Split) -> Tensor:
    """The mean of ReLU of each channel's output, after BatchNorm, over a split; [channels]."""
    seen: list[Tensor] = []
    layer = with_norm(network, name)[-1]
    channel = -1 if isinstance(layer, nn.Linear) else 1  # a linear layer may be called on tokens [N, T, channels]
    hook = layer.register_forward_hook(
        lambda _, given, made: seen.append(made.relu().movedim(channel, 0).flatten(1).double().mean(1).cpu())
    )
    try:
        sizes = []
        for x, _ in batches(split, BATCH, next(network.parameters()).device):
            network(x)
            sizes.append(len(x))
    finally:
        hook.remove()
    weights = torch.tensor(sizes).double() / sum(sizes)
    return (torch.stack(seen) * weights[:, None]).sum(0)


@torch.no_grad()
def silence(network: nn.Module, name: str, channels: Sequence[int]) -> None:
    """Set the weights and biases of these channels of a layer, and of its BatchNorm, to zero."""
    for layer in with_norm(network, name):
        for weight in (layer.weight, layer.bias):
            if isinstance(weight, Tensor):
                weight[list(channels)] = 0
