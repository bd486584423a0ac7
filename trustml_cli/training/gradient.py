"""The mini-batch training loop of all networks that are trained by gradients."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from time import perf_counter
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import Augmentation, batches
from trustml_cli.data.dataset import Dataset, InMemory, Split, random_subset
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.classifier import Classifier, memory_format, rehearse
from trustml_cli.models.model import DataDependentInit, FixedFirst
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import Hardware, report_out_of_memory
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.training.averaging import Averaging
from trustml_cli.training.iterations import IterationLog
from trustml_cli.training.optimization import Optimization, Optimizer, Schedule, make_optimizer, make_schedule
from trustml_cli.training.predict import BATCH, mean_score, predict
from trustml_cli.training.step import CROSS_ENTROPY, Groups, Monitor, TrainingStep
from trustml_cli.training.trainer import Epoch, Report, Trainer, finite

NO_WEIGHT_GRADIENT = "gives no trainable weight a gradient (torch.no_grad, detach); use model.checkpoint, or mend it"
SHOWN = 5_000  # training images for data-dependent initialization


@dataclass(frozen=True, kw_only=True)
class GradientTrainer(Trainer):
    """Mini-batch training by gradients.

    Each epoch goes once over the shuffled training images in whole batches, `steps_per_epoch` of them at most. `flip`
    and `crop_padding` augment them. With `patience`, `validation_fraction` of the training images is held out,
    training stops when their loss has not fallen for `patience` epochs, and the best weights are kept.

    A `TrainingStep` computes the update for each batch. If it takes `steps_per_batch` optimiser steps for each, the
    number of epochs is divided by that. If it has a `monitor`, the best weights are those with the highest score on
    the validation images, and among equal ones those with the lowest loss: under adversarial training the loss of clean
    images goes on falling while robustness is lost (Rice, Wong and Kolter 2020, arXiv 2002.11569).

    Every `log_every` batches (None: never) it reports an `Iteration`, with test values on `log_images` test images.

    Out of memory is an error: training with smaller batches would give a different network.
    """

    takes_steps: ClassVar = True
    continues: ClassVar = True

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
    log_every: int | None
    log_images: int

    def __post_init__(self) -> None:
        require(self, "epochs", "steps_per_epoch", "batch_size", "patience", "log_every", "log_images", at_least=1)
        require(self, "lr", above=0)
        require(self, "weight_decay", "crop_padding", at_least=0)
        require(self, "momentum", "label_smoothing", at_least=0, below=1)
        require(self, "validation_fraction", above=0, below=1)

    def rehearse(self, network: Classifier, data: Dataset) -> None:
        problem = network.rehearsal.error and f"fails ({network.rehearsal.error})"
        if not problem and any(one.requires_grad for one in network.parameters()):
            problem = "" if network.rehearsal.weight_gradient else NO_WEIGHT_GRADIENT
        if problem:
            raise InputError(f"model: cannot be trained: in training mode it {problem}")
        train = data.train.divide(self.validation_fraction, seed=0)[0] if self.patience is not None else data.train
        if not len(train):
            raise InputError("trainer.validation_fraction: leaves nothing to train on; lower it, or use patience=null")
        if min(self.batch_size, len(train)) == 1:
            error = rehearse(network, torch.full((1, *data.shape), 0.5)).error
            if error:
                key = "trainer.batch_size" if self.batch_size == 1 else "dataset"
                raise InputError(f"{key}: the model cannot be trained on batches of one ({error}); use two or more")

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
        if (self.flip or self.crop_padding) and len(data.shape) != 3:
            raise InputError("trainer.flip, trainer.crop_padding: need images, and the data set holds none")
        network.to(hardware.device).to(
            memory_format=memory_format(network) if self.channels_last else torch.contiguous_format
        )
        train, test, validation = data.train.on(hardware.device), data.test.on(hardware.device), None
        if isinstance(network[-1], FixedFirst) and step.takes_features and not (self.flip or self.crop_padding):
            train, test = (features_of(network, split, hardware) for split in (train, test))
            network = nn.Sequential(network[-1].head)
        if self.patience is not None:
            train, validation = train.divide(self.validation_fraction, seed=0)
        steps = max(1, len(train) // self.batch_size)
        steps = min(steps, self.steps_per_epoch or steps)
        if not initialized:
            show(network, train, hardware)
        epochs = ceil(self.epochs / step.steps_per_batch)
        in_all = epochs * steps * step.steps_per_batch
        optimization = self.optimization(network, hardware, step, networks, in_all, len(train))
        log = self.log_every and IterationLog(self.log_every, random_subset(test, self.log_images, seed=0), hardware)
        best, best_epoch, best_weights = (inf, inf), 0, network.state_dict()

        with Progress[None](total=epochs * steps, desc="training", unit="step") as bar:
            for epoch in range(1, epochs + 1):
                start = perf_counter()
                bar.tell(epoch=f"{epoch} of {epochs}")
                with report_out_of_memory(f"lower trainer.batch_size (it is {self.batch_size})"):
                    shown = self.training_batches(train, steps, epoch, hardware, step)
                    loss, accuracy, seen = optimization.epoch(shown, bar, log or None)
                seconds = perf_counter() - start
                bar.tell(loss=f"{loss:.3f}", accuracy=in_percent(accuracy))  # of short epochs nothing has been told
                answers = predict(network, test, hardware)
                checked = predict(network, validation, hardware) if validation else None
                scores = monitored(network, step.monitor, train, validation, hardware)
                report(
                    Epoch(
                        epoch=epoch,
                        step=epoch * steps,
                        iterations=log.take() if log else (),
                        train_loss=loss,
                        train_accuracy=accuracy,
                        test_loss=finite(answers.loss),  # the last step may have diverged
                        test_accuracy=answers.accuracy,
                        lr=optimization.last_lr,
                        seconds=seconds,
                        images=seen * step.steps_per_batch,
                        validation_loss=checked.loss if checked else None,
                        validation_accuracy=checked.accuracy if checked else None,
                        extra={**scores, **step.history(optimization)},
                    )
                )
                if checked and (rank := (-validation_score(step.monitor, scores), checked.loss)) < best:
                    best, best_epoch = rank, epoch
                    best_weights = copy.deepcopy(network.state_dict())
                elif self.patience and epoch - best_epoch >= self.patience:
                    break
        if validation:
            network.load_state_dict(best_weights)

    def optimization(
        self,
        network: nn.Module,
        hardware: Hardware,
        step: TrainingStep,
        networks: Sequence[nn.Module],
        steps: int,
        examples: int,
    ) -> Optimization:
        """The `Optimization` of `network` on `examples` training examples over `steps` optimiser steps."""
        optimizer = step.optimizer(
            network, self.groups(network), lambda groups: make_optimizer(self.optimizer, groups, self.momentum)
        )
        return Optimization(
            network,
            optimizer,
            make_schedule(self.schedule, optimizer, steps),
            hardware,
            step,
            networks,
            self.label_smoothing,
            self.averaging(network, steps),
            examples=examples,
            batch_size=min(self.batch_size, examples),
            steps=steps,
        )

    def training_batches(
        self, train: Split, steps: int, epoch: int, hardware: Hardware, step: TrainingStep = CROSS_ENTROPY
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch: those of `step`, or full ones of the shuffled training set.

        Examples left over after the last full batch are dropped in this epoch.
        """
        own = step.batches(len(train), self.batch_size, steps)
        augmentation = self.augmentation(len(train), epoch, hardware) if self.flip or self.crop_padding else None
        if own is None:
            order = torch.randperm(len(train))[: steps * self.batch_size]
            yield from batches(train, self.batch_size, hardware.device, order, augmentation, self.memory_format)
        else:
            for rows in own:
                size = max(1, len(rows))
                yield from batches(train, size, hardware.device, rows, augmentation, self.memory_format)

    def augmentation(self, images: int, epoch: int, hardware: Hardware) -> Augmentation:
        """The augmentation in `epoch` (from 1) of a training set of `images` images."""
        return Augmentation(self.flip, self.crop_padding)

    def groups(self, network: nn.Module) -> Groups:
        """The parameter groups of all trainable weights, with learning rate and weight decay."""
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        return [{"params": weights, "lr": self.lr, "weight_decay": self.weight_decay}]

    def averaging(self, network: nn.Module, steps: int) -> Averaging | None:
        """The averaging of the weights over `steps` steps; None for none."""
        return None

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of weights and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def show(network: nn.Sequential, train: Split, hardware: Hardware) -> None:
    """Run the data-dependent initialization of a network, if it has one, on up to `SHOWN` fixed training images."""
    if isinstance(network[-1], DataDependentInit):
        images, _ = next(batches(random_subset(train, SHOWN, seed=0), SHOWN, hardware.device))
        with torch.no_grad():
            network[-1].initialize_from(network[0](images))


@torch.no_grad()
def features_of(network: nn.Sequential, split: Split, hardware: Hardware) -> Split:
    """The fixed features of a split, as inputs of the head of a network that ends in a `FixedFirst`."""
    fixed = nn.Sequential(*network[:-1], network[-1].features).eval()  # type: ignore[arg-type]
    parts = batches(split, BATCH, hardware.device)
    return InMemory(torch.cat([fixed(x) for x, _ in parts]), split.labels.to(hardware.device))


def monitored(
    network: nn.Module, monitor: Monitor | None, train: Split, validation: Split | None, hardware: Hardware
) -> dict[str, float | None]:
    """The columns of `monitor` for history.csv; the validation score is None without validation data."""
    if monitor is None:
        return {}
    on_train = mean_score(network, train, monitor, hardware, monitor.images)
    on_validation = mean_score(network, validation, monitor, hardware) if validation else None
    return {f"train_{monitor.name}": on_train, f"validation_{monitor.name}": on_validation}


def validation_score(monitor: Monitor | None, scores: Mapping[str, float | None]) -> float:
    """The validation score by which the best epoch is chosen; 0 where there is none."""
    return (scores[f"validation_{monitor.name}"] or 0.0) if monitor else 0.0
