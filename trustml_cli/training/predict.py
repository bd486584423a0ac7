"""A network's answers on a whole split."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Split
from trustml_cli.hardware import Hardware

BATCH = 250  # images per forward pass without gradients; larger ones fall out of a CPU's cache


@dataclass(frozen=True)
class Answers:
    """Logits [N, classes] and labels [N] of a split, both on the CPU."""

    logits: Tensor
    labels: Tensor

    @property
    def predicted(self) -> Tensor:
        """Class numbers, [N]."""
        return self.logits.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """Softmax probability of the predicted class, [N], in [0, 1]."""
        return self.logits.softmax(1).amax(1)

    @property
    def correct(self) -> Tensor:
        """Whether the predicted class is the right one, bool [N]."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return self.correct.double().mean().item()

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return functional.cross_entropy(self.logits.double(), self.labels).item()


@torch.no_grad()
def predict(network: nn.Module, split: Split, hardware: Hardware) -> Answers:
    """The answers of `network` in eval mode, in the order of the split."""
    network.eval()
    logits, labels = [], []
    for x, y in batches(split, BATCH, hardware.device):
        with hardware.autocast():
            logits.append(network(x).float())
        labels.append(y)
    return Answers(torch.cat(logits).cpu(), torch.cat(labels).cpu())
