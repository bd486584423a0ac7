"""The one training loop for every network that is trained by its gradient."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from math import ceil, inf, isfinite
from time import perf_counter
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from tqdm import tqdm

from trustml_cli.data.batches import Augmentation, batches
from trustml_cli.data.dataset import Dataset, Split, drawn
from trustml_cli.defences.defence import Lesson, RobustTraining, learn
from trustml_cli.errors import InputError
from trustml_cli.hardware import Hardware, Precision, within_memory
from trustml_cli.models.model import LooksFirst
from trustml_cli.training.lookahead import Lookahead
from trustml_cli.training.predict import predict, robust_accuracy
from trustml_cli.training.trainer import Epoch, Report, Trainer, finite

SHOWN = 5_000  # training images for networks that look at them before they are trained
LOOK_EVERY = 50  # steps between two looks at the loss: each look makes a GPU wait


class Optimizer(Enum):
    """How a gradient becomes a step."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class Schedule(Enum):
    """How the learning rate goes over the run."""

    constant = "constant"
    cosine = "cosine"
    """From lr to zero along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    one_cycle = "one_cycle"
    """Up to lr over the first 30 % of the steps, then down to almost zero (Smith and Topin 2017, arXiv 1708.07120)."""
    triangular = "triangular"
    """Along a line from 0.2 lr to lr over the first 23 % of the steps, along another to 0.07 lr at the end (Jordan
    2024, arXiv 2404.00498)."""


@dataclass(frozen=True, kw_only=True)
class GradientTrainer(Trainer):
    """Mini-batch training on the softmax cross-entropy.

    Each epoch goes once over the shuffled training images in whole batches, `steps_per_epoch` of them at most. `flip`
    and `crop_padding` augment them. With `patience`, `validation_fraction` of the training images is set aside,
    training stops when their loss has not fallen for so many epochs, and the best weights are kept.

    Under a defence the best weights are those with the highest accuracy on the validation images under attack, for the
    loss of clean ones goes on falling while robustness is lost (Rice, Wong and Kolter 2020, arXiv 2002.11569); of two
    epochs that stand equally well, the one with the lower loss is the better one.

    A defence decides what is learned from each batch. Where it takes several steps for each, there are so many times
    fewer epochs. Where memory runs out, training ends: smaller batches would make another network of it.
    """

    epochs: int
    steps_per_epoch: int | None
    batch_size: int
    optimizer: Optimizer
    lr: float
    momentum: float
    weight_decay: float
    schedule: Schedule
    label_smoothing: float
    flip: bool
    crop_padding: int
    patience: int | None
    validation_fraction: float
    channels_last: bool

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be at least 1, got {value}")
        if not (self.lr > 0 and isfinite(self.lr)):
            raise ValueError(f"lr: must be above 0 and finite, got {self.lr}")
        for name in ("weight_decay", "crop_padding"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name}: must be at least 0 and finite, got {getattr(self, name)}")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: must be in [0, 1), got {getattr(self, name)}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction: must be between 0 and 1, got {self.validation_fraction}")

    def fit(
        self,
        network: nn.Sequential,
        data: Dataset,
        hardware: Hardware,
        report: Report,
        defence: RobustTraining | None = None,
        static: Sequence[nn.Module] = (),
    ) -> None:
        """Train `network` in place; `static` are the trained networks that the defence needs."""
        if (self.flip or self.crop_padding) and len(data.shape) != 3:
            raise InputError("trainer.flip, trainer.crop_padding: need images, and the data set holds none")
        network.to(hardware.device).to(memory_format=self.memory_format)
        train, test, validation = data.train.on(hardware.device), data.test.on(hardware.device), None
        if self.patience is not None:
            train, validation = train.divide(self.validation_fraction, seed=0)
        steps = max(1, len(train) // self.batch_size)
        steps = min(steps, self.steps_per_epoch or steps)
        show(network, train, hardware)
        lesson, repeats = (defence.lessons(static), defence.steps_per_batch) if defence else (learn, 1)
        epochs = ceil(self.epochs / repeats)
        descent = Descent(self, hardware.compiled(network), epochs * steps * repeats, hardware, lesson)
        best, best_epoch, best_weights = (inf, inf), 0, network.state_dict()

        with tqdm(total=epochs * steps, desc="training", unit="step", disable=None) as bar:
            for epoch in range(1, epochs + 1):
                start, lr = perf_counter(), descent.lr
                with within_memory(f"lower trainer.batch_size (it is {self.batch_size})"):
                    loss, accuracy = descent.epoch(self.training_batches(train, steps, epoch, hardware), bar)
                seconds = perf_counter() - start
                answers = predict(network, test, hardware)
                checked = predict(network, validation, hardware) if validation else None
                seen = robust_accuracy(network, train, defence, hardware, defence.images) if defence else None
                stands = robust_accuracy(network, validation, defence, hardware) if defence and validation else None
                report(
                    Epoch(
                        epoch=epoch,
                        train_loss=loss,
                        train_accuracy=accuracy,
                        test_loss=finite(answers.loss),  # the last step may have lost it
                        test_accuracy=answers.accuracy,
                        lr=lr,
                        seconds=seconds,
                        images=steps * repeats * min(self.batch_size, len(train)),
                        validation_loss=checked.loss if checked else None,
                        validation_accuracy=checked.accuracy if checked else None,
                        train_robust_accuracy=seen,
                        validation_robust_accuracy=stands,
                    )
                )
                if checked and (rank := (-(stands or 0.0), checked.loss)) < best:
                    best, best_epoch = rank, epoch
                    best_weights = copy.deepcopy(network.state_dict())
                elif self.patience and epoch - best_epoch >= self.patience:
                    break
        if validation:
            network.load_state_dict(best_weights)

    def training_batches(
        self, train: Split, steps: int, epoch: int, hardware: Hardware
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: whole batches in a new random order; what does not fill the last one waits for the next epoch."""
        order = torch.randperm(len(train))[: steps * self.batch_size]
        augmentation = self.augmentation(len(train), epoch, hardware) if self.flip or self.crop_padding else None
        return batches(train, self.batch_size, hardware.device, order, augmentation, self.memory_format)

    def augmentation(self, images: int, epoch: int, hardware: Hardware) -> Augmentation:
        """What is done to the images of one epoch, which is one of so many images; the first has number 1."""
        return Augmentation(self.flip, self.crop_padding)

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The weights that train, each group with a learning rate and a weight decay of its own."""
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        return [{"params": weights, "lr": self.lr, "weight_decay": self.weight_decay}]

    def lookahead(self, network: nn.Module, steps: int) -> Lookahead | None:
        """What holds the weights back over a run of `steps` steps."""
        return None

    @property
    def memory_format(self) -> torch.memory_format:
        """Where the channels of weights and images lie."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


class Descent:
    """A network under an optimiser with its learning-rate schedule and, for fp16, its loss scale.

    `lesson` is what it learns from each batch.
    """

    def __init__(
        self, trainer: GradientTrainer, network: nn.Module, steps: int, hardware: Hardware, lesson: Lesson
    ) -> None:
        self.network, self.hardware, self.label_smoothing = network, hardware, trainer.label_smoothing
        self.lesson = lesson
        self.optimizer = make_optimizer(trainer, network)
        self.schedule = make_schedule(trainer.schedule, self.optimizer, steps)
        self.lookahead = trainer.lookahead(network, steps)
        scaled = hardware.precision is Precision.fp16 and hardware.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=scaled)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def epoch(self, training_batches: Iterable[tuple[Tensor, Tensor]], bar: "tqdm[NoReturn]") -> tuple[float, float]:
        """A lesson for each batch; returns mean loss and accuracy. Raises `RunFailed` if the loss is lost."""
        self.network.train()
        loss_sum = torch.zeros((), device=self.hardware.device)
        correct = torch.zeros((), device=self.hardware.device)
        seen = 0
        for step, (x, y) in enumerate(training_batches, start=1):
            loss, logits = self.lesson(self, x, y)
            loss_sum += loss * len(y)
            correct += (logits.argmax(1) == y).sum()
            seen += len(y)
            if step % LOOK_EVERY == 0:
                bar.set_postfix(loss=f"{finite(loss_sum) / seen:.3f}", refresh=False)
            bar.update()
        return finite(loss_sum) / seen, correct.item() / seen

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step down the gradient on inputs x and labels y; returns loss and logits from before it."""

        def judge() -> tuple[Tensor, Tensor]:
            logits = self.network(x)
            return self.cross_entropy(logits, y), logits

        return self.descend(judge)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean softmax cross-entropy in nats, with the trainer's label smoothing."""
        return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    def descend(self, judge: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """One step down the loss that `judge` returns with the logits; returns both."""
        with self.hardware.autocast():
            loss, logits = judge()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.lookahead:
            self.lookahead.step()
        return loss.detach(), logits.detach()


def make_optimizer(trainer: GradientTrainer, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over every weight that trains, with its fused kernel."""
    groups = trainer.groups(network)
    weights = [weight for group in groups for weight in group["params"]]
    if not weights:
        raise InputError("model: has no weight that trains; take model.freeze=false, or weights with model.checkpoint")
    fused, momentum = weights[0].device.type != "mps", trainer.momentum
    if trainer.optimizer is Optimizer.sgd:
        return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=fused)
    kind = torch.optim.Adam if trainer.optimizer is Optimizer.adam else torch.optim.AdamW
    return kind(groups, betas=(momentum, 0.999), fused=fused)


def make_schedule(schedule: Schedule, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The learning rate over `steps` steps, from what the optimiser has; the same way for each group of weights."""
    if schedule is Schedule.one_cycle:
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=rates, total_steps=steps + 1, cycle_momentum=False)
    if schedule is Schedule.cosine:
        return CosineAnnealingLR(optimizer, T_max=steps)
    if schedule is Schedule.triangular:
        return LambdaLR(optimizer, lambda step: triangle(step, steps))
    return LambdaLR(optimizer, lambda step: 1.0)


def triangle(step: int, steps: int) -> float:
    """The share of the learning rate that `Schedule.triangular` takes at a step, of `steps` in all."""
    peak = int(0.23 * steps)
    return 0.2 + 0.8 * step / peak if step < peak else 1 - 0.93 * (step - peak) / (steps - peak)


def show(network: nn.Sequential, train: Split, hardware: Hardware) -> None:
    """Let a network that looks at images before it is trained see up to `SHOWN` of them, always the same."""
    if isinstance(network[-1], LooksFirst):
        images, _ = next(batches(drawn(train, SHOWN, seed=0), SHOWN, hardware.device))
        with torch.no_grad():
            network[-1].look_at(network[:-1](images))
