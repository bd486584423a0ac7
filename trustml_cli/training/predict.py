"""A network's predictions on a whole split."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Split
from trustml_cli.models.inference import predicted_classes
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import BatchSplitter, Hardware, seeded
from trustml_cli.training.step import Monitor

BATCH = 250  # images per forward pass without gradients; larger batches exceed a CPU's cache
ON_GPU = 6_000_000  # values in a batch on a GPU, which waits for the next small batch; images of 3×32×32: 1,953


@dataclass(frozen=True)
class Answers:
    """Logits [N, classes] and labels [N] of a split, both on the CPU."""

    logits: Tensor
    labels: Tensor

    @property
    def predicted(self) -> Tensor:
        """Class numbers, int64 [N]; −1 where a logit is NaN."""
        return predicted_classes(self.logits)

    @property
    def confidence(self) -> Tensor:
        """Softmax probability of the predicted class, [N], in [0, 1]."""
        return self.logits.softmax(1).amax(1)

    @property
    def correct(self) -> Tensor:
        """Whether the predicted class is the label, bool [N]; False where a logit is NaN."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, in [0, 1]."""
        return self.correct.double().mean().item()

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return functional.cross_entropy(self.logits.double(), self.labels).item()


def batch_size(split: Split, device: torch.device) -> int:
    """The number of images in a batch where no weights are trained, by the device and the size of an image."""
    return BATCH if device.type == "cpu" else max(BATCH, ON_GPU // prod(split.shape))


@torch.no_grad()
def predict(network: nn.Module, split: Split, hardware: Hardware) -> Answers:
    """The predictions of `network` in eval mode, in the order of the split; out of memory, batches are halved.

    Raises `RunFailed` for an example whose largest logit is not finite: it has no class.
    """

    def answered(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with hardware.autocast():
            return network(x).float(), y

    network.eval()
    stream = batches(split, batch_size(split, hardware.device), hardware.device)
    logits, labels = zip(*BatchSplitter().over(stream, answered), strict=True)
    answers = Answers(torch.cat(logits).cpu(), torch.cat(labels).cpu())
    if len(nameless := (~answers.logits.amax(1).isfinite()).nonzero()):
        raise RunFailed(
            f"the network has no finite logit for {len(nameless):,} of {len(split):,} examples, first for number "
            f"{int(nameless[0]):,}; mend it or its weights, or if it was being trained: it diverged; try a smaller "
            "trainer.lr"
        )
    return answers


def mean_score(
    network: nn.Module, split: Split, monitor: Monitor, hardware: Hardware, images: int | None = None
) -> float:
    """The mean of the monitor's score over `images` fixed random examples (None: all)."""
    network.eval()
    total, order = 0.0, torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:images]
    with seeded(0):  # leaves the random state of training unchanged
        for x, y in batches(split, BATCH, hardware.device, order):
            total += monitor.score(network, x, y).double().sum().item()
    return total / len(order)
