"""A network with its optimiser, learning-rate schedule and gradient scaler."""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from trustml_cli.metrics.numbers import in_percent
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import Hardware, Precision
from trustml_cli.system.progress import Progress
from trustml_cli.training.averaging import Averaging
from trustml_cli.training.iterations import IterationLog
from trustml_cli.training.step import Closure, Groups, TrainingStep
from trustml_cli.training.trainer import finite

LOOK_EVERY = 50  # steps between two reads of the loss: each read synchronizes with the GPU


class Optimizer(Enum):
    """The optimiser, from `torch.optim`."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class Schedule(Enum):
    """The learning-rate schedule."""

    constant = "constant"
    cosine = "cosine"
    """From lr to zero along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    one_cycle = "one_cycle"
    """Up to lr over the first 30 % of the steps, then down to almost zero (Smith and Topin 2017, arXiv 1708.07120)."""
    triangular = "triangular"
    """Linear from 0.2 lr to lr over the first 23 % of the steps, then linear to 0.07 lr (Jordan 2024, arXiv
    2404.00498)."""


class Optimization:
    """The state of training one network by one `TrainingStep`; implements `TrainingState`.

    `networks` are the trained networks that the step needs. The loss is scaled for fp16 on a GPU.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: LRScheduler,
        hardware: Hardware,
        step: TrainingStep,
        networks: Sequence[nn.Module] = (),
        label_smoothing: float = 0.0,
        averaging: Averaging | None = None,
        *,
        examples: int,
        batch_size: int,
        steps: int,
    ) -> None:
        self.module, self.network = network, hardware.compiled(network)
        self.optimizer, self.schedule, self.averaging = optimizer, schedule, averaging
        self.hardware, self.training_step, self.networks = hardware, step, networks
        self.label_smoothing = label_smoothing
        self.examples, self.batch_size, self.steps = examples, batch_size, steps
        self.memory: dict[str, Any] = {}
        self.last_lr = self.lr
        """The learning rate of the last batch."""
        scaled = hardware.precision is Precision.fp16 and hardware.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=scaled)

    @property
    def lr(self) -> float:
        """The learning rate of the first parameter group in the next step."""
        return float(self.schedule.get_last_lr()[0])

    def epoch(
        self, batches: Iterable[tuple[Tensor, Tensor]], bar: Progress[None], log: IterationLog | None = None
    ) -> tuple[float, float, int]:
        """Train on each batch; returns mean loss, accuracy and the number of examples. A negative label is none.

        `log` measures iterations. Raises `RunFailed` if the loss is no longer finite.
        """
        self.network.train()
        loss_sum = torch.zeros((), device=self.hardware.device)
        correct, labelled = torch.zeros(2, device=self.hardware.device).unbind()
        seen = 0
        for number, (x, y) in enumerate(batches, start=1):
            self.last_lr = self.lr
            loss, logits = self.training_step(self, x, y)
            if len(y):  # a batch may be empty
                loss_sum += loss * len(y)
                correct += (logits.argmax(1) == y).sum()
                labelled += (y >= 0).sum()
                seen += len(y)
            if log and log.due(y):
                log.add(self.module, loss, logits, y, self.last_lr)
                self.network.train()
            if (number - 1) % LOOK_EVERY == 0 or bar.stale:
                share = correct.item() / max(1, labelled.item())
                bar.tell(loss=f"{finite(loss_sum) / max(1, seen):.3f}", accuracy=in_percent(share))
            bar.update()
        return finite(loss_sum) / max(1, seen), correct.item() / max(1, labelled.item()), seen

    def step(self, closure: Closure) -> tuple[Tensor, Tensor]:
        """Take one optimiser step on the loss that `closure` returns; returns loss and logits, detached."""
        with self.autocast():
            loss, logits = closure()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.advance()
        return loss.detach(), logits.detach()

    def apply_gradients(self) -> None:
        """Take one optimiser step with the gradients in each weight's `.grad`, which are not scaled."""
        self.optimizer.step()
        self.advance()

    def advance(self) -> None:
        """Advance the schedule and the averaging of the weights after an optimiser step."""
        self.schedule.step()
        if self.averaging:
            self.averaging.step()

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean softmax cross-entropy in nats, with the trainer's label smoothing."""
        return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    def autocast(self) -> torch.autocast:
        """The autocast context of the run's precision."""
        return self.hardware.autocast()


def make_optimizer(kind: Optimizer, groups: Groups, momentum: float) -> torch.optim.Optimizer:
    """The optimiser for the parameter `groups`, with its fused kernel; `momentum` is also Adam's first beta.

    Raises `InputError` where no weight is trainable.
    """
    weights = [weight for group in groups for weight in group["params"]]
    if not weights:
        raise InputError("model: has no weight that trains; use model.freeze=false, or weights with model.checkpoint")
    fused = weights[0].device.type != "mps"
    if kind is Optimizer.sgd:
        return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=fused)
    adam = torch.optim.Adam if kind is Optimizer.adam else torch.optim.AdamW
    return adam(groups, betas=(momentum, 0.999), fused=fused)


def make_schedule(schedule: Schedule, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The learning-rate schedule over `steps` steps, relative to the `lr` of each parameter group."""
    if schedule is Schedule.one_cycle:
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=rates, total_steps=steps + 1, cycle_momentum=False)
    if schedule is Schedule.cosine:
        return CosineAnnealingLR(optimizer, T_max=steps)
    if schedule is Schedule.triangular:
        return LambdaLR(optimizer, lambda step: triangle(step, steps))
    return LambdaLR(optimizer, lambda step: 1.0)


def triangle(step: int, steps: int) -> float:
    """The factor of `Schedule.triangular` at `step` of `steps`."""
    peak = int(0.23 * steps)
    return 0.2 + 0.8 * step / peak if step < peak else 1 - 0.93 * (step - peak) / (steps - peak)
