"""The gradient trainer with the hyperparameters of Jordan 2024, for training in few steps."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trustml_cli.data.batches import Augmentation, SettledAugmentation
from trustml_cli.system.hardware import Hardware
from trustml_cli.system.ranges import require
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.lookahead import Lookahead
from trustml_cli.training.optimization import Optimizer
from trustml_cli.training.step import Groups

PER = 1024  # number of examples that `lr` and `weight_decay` refer to


@dataclass(frozen=True, kw_only=True)
class FastTrainer(GradientTrainer):
    """Nesterov SGD as in Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498.

    `lr` is the total step length over 1,024 examples in units of the gradient, and `weight_decay` the share by which a
    weight decays over 1,024 examples at full `lr`; neither depends on `batch_size`, `momentum` or the other one.
    BatchNorm's biases have `bias_lr` times the learning rate of the rest, and the same decay. Every `lookahead_every`
    steps (null: never) the weights are set to their moving average, with decay `lookahead_decay` a step (`Lookahead`).
    `flip` mirrors each image in every other epoch, a random half of them in the odd ones; `crop_padding` reflects.
    """

    bias_lr: float
    lookahead_every: int | None
    lookahead_decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer is not Optimizer.sgd:
            raise ValueError(f"optimizer: must be sgd for this trainer, got {self.optimizer.value}")
        require(self, "bias_lr", above=0)
        require(self, "lookahead_every", at_least=1)
        require(self, "lookahead_decay", at_least=0, at_most=1)

    def groups(self, network: nn.Module) -> Groups:
        layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
        biases = {layer.bias for layer in layers if layer.bias is not None}
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        nesterov = 1 + 1 / (1 - self.momentum)  # step length in units of the gradient, if it were constant
        lr, decay = self.lr * self.batch_size / PER / nesterov, self.weight_decay / self.lr
        return [
            {"params": [weight for weight in weights if weight not in biases], "lr": lr, "weight_decay": decay},
            {
                "params": [weight for weight in weights if weight in biases],
                "lr": lr * self.bias_lr,
                "weight_decay": decay / self.bias_lr,
            },
        ]

    def averaging(self, network: nn.Module, steps: int) -> Lookahead | None:
        if self.lookahead_every is None:
            return None
        return Lookahead(network, self.lookahead_every, self.lookahead_decay, steps)

    def augmentation(self, images: int, epoch: int, hardware: Hardware) -> Augmentation:
        coins = torch.Generator().manual_seed(torch.initial_seed())  # the same draw in each epoch of a run
        mirrored = (torch.rand(images, generator=coins) < 0.5) ^ bool(epoch % 2)
        return SettledAugmentation(self.flip, self.crop_padding, mirrored.to(hardware.device))
