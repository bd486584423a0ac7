"""trainer=dp_sgd: training with differential privacy, and what it guarantees."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trustml_cli.data.dataset import Dataset
from trustml_cli.models.classifier import Classifier
from trustml_cli.models.model import DataDependentInit, Model, Normalization
from trustml_cli.privacy import accounting, loss_distribution
from trustml_cli.privacy.dp_sgd import DpSgdStep, clipped_gradients
from trustml_cli.privacy.promise import promise
from trustml_cli.system.errors import InputError, one_line, prefix_errors
from trustml_cli.system.hardware import Hardware, is_out_of_memory, seeded
from trustml_cli.system.ranges import require
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.step import CROSS_ENTROPY, TrainingStep
from trustml_cli.training.trainer import Epoch, Report


class Accountant(Enum):
    """How ε is computed from the noise."""

    rdp = "rdp"
    """By Rényi orders (`accounting`)."""
    pld = "pld"
    """By the distribution of the privacy loss (`loss_distribution`): the same guarantee with less noise."""


SPENT = {Accountant.rdp: accounting.epsilon, Accountant.pld: loss_distribution.epsilon}


@dataclass(frozen=True, kw_only=True)
class DpSgdTrainer(GradientTrainer):
    """DP-SGD (`DpSgdStep`) with the noise that `epsilon` needs, or with a given `noise_multiplier`.

    The trained weights are (ε, `delta`)-differentially private with respect to the training examples: adding one or
    leaving one out changes the probability of any result by at most a factor of e^ε, but for a probability of `delta`.
    Not covered are the choice of settings by several runs, and what a run says of the training examples: losses and
    accuracies in history.csv, `train_accuracy` and `clipped_share`.
    """

    takes_steps: ClassVar = False
    private: ClassVar = True

    clip: float
    epsilon: float | None
    noise_multiplier: float | None
    delta: float
    accountant: Accountant
    noise_seed: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "clip", "epsilon", above=0)
        require(self, "noise_multiplier", at_least=0)
        require(self, "delta", above=0, below=1)
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("epsilon: or noise_multiplier, one of the two needs a number and the other null")
        if self.patience is not None:
            raise ValueError("patience: chooses an epoch by private examples without noise; use null")
        if self.label_smoothing:
            raise ValueError("label_smoothing: is not implemented with clipped gradients; use 0")

    def check(self, model: Model) -> None:
        if model.normalization is Normalization.dataset:
            raise ValueError(
                "dp_sgd adds noise to what is learned, and model.normalization=dataset reads mean and deviation of the "
                "private examples without noise; use model.normalization=symmetric or none"
            )

    def check_network(self, network: nn.Module) -> None:
        network.train()  # frozen layers stay in eval mode
        layers = [layer for layer in network.modules() if layer.training]
        network.eval()
        if any(isinstance(layer, _BatchNorm) for layer in layers):
            raise ValueError(
                "BatchNorm mixes the examples of a batch, and dp_sgd clips them one by one; use model.norm=group "
                "(cifar_cnn, resnet18), or a model without it: tanh_cnn, fixed_features, mnist_cnn, mlp or logistic"
            )
        if any(getattr(layer, "track_running_stats", False) for layer in layers):
            raise ValueError("keeps statistics of the private examples without noise; use track_running_stats=False")
        if any(isinstance(layer, DataDependentInit) for layer in layers):
            raise ValueError("is initialised from private examples without noise; choose another, such as tanh_cnn")

    def rehearse(self, network: Classifier, data: Dataset) -> None:
        super().rehearse(network, data)
        copy = deepcopy(network).train()
        weights = {name: weight for name, weight in copy.named_parameters() if weight.requires_grad}
        try:
            with seeded(0):
                clipped_gradients(copy, weights, torch.rand(2, *data.shape), torch.zeros(2).long(), self.clip)
        except Exception as error:  # whatever a layer raises
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"model: gives no gradients of single examples by torch.func.vmap ({one_line(error)}); tensors that it "
                "makes must depend on its input, as in x.new_zeros(…) for the first state of a GRU"
            ) from error

    def fit(
        self,
        network: nn.Sequential,
        data: Dataset,
        hardware: Hardware,
        report: Report,
        step: TrainingStep = CROSS_ENTROPY,
        networks: Sequence[nn.Module] = (),
        initialized: bool = False,
    ) -> None:
        own = DpSgdStep(clip=self.clip, noise_multiplier=self.noise(len(data.train)), noise_seed=self.noise_seed)
        super().fit(network, data, hardware, report, own, networks, initialized)

    def sampling(self, examples: int) -> tuple[float, int]:
        """The probability of each example to be in a batch, and the number of steps."""
        steps = max(1, examples // self.batch_size)
        return min(1.0, self.batch_size / examples), self.epochs * min(steps, self.steps_per_epoch or steps)

    def noise(self, examples: int) -> float:
        """The noise multiplier for so many training examples."""
        if self.epsilon is None:
            assert self.noise_multiplier is not None
            return self.noise_multiplier
        with prefix_errors("trainer"):
            sampling = self.sampling(examples)
            return accounting.noise_for(self.epsilon, *sampling, self.delta, SPENT[self.accountant])

    def spent(self, examples: int) -> float:
        """ε for so many training examples."""
        with prefix_errors("trainer"):
            return SPENT[self.accountant](self.noise(examples), *self.sampling(examples), self.delta)

    def columns(self, examples: int, history: Sequence[Epoch]) -> Mapping[str, Any]:
        noise = self.noise(examples)
        shares = [epoch.extra.get("clipped_share") for epoch in history]
        known = [share for share in shares if share is not None]
        return {
            "epsilon": self.spent(examples),
            "delta": self.delta,
            "noise_multiplier": noise,
            "clipped_share": sum(known) / len(known) if known else None,
            "accountant": self.accountant.value,
            "rehearsal": self.noise_seed is not None,
        }

    def checks(self, examples: int) -> Sequence[tuple[str, bool, str]]:
        by = self.accountant.value.upper()
        return promise("trainer.noise_seed", self.noise_seed, self.delta, examples, self.spent(examples), by)
