"""Joint training of many small networks of one architecture, with stacked weights and `torch.func.vmap`."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import DataDependentInit, FixedFirst
from trustml_cli.system.hardware import Hardware, Precision, report_out_of_memory
from trustml_cli.system.progress import Progress
from trustml_cli.training.gradient import GradientTrainer, features_of
from trustml_cli.training.optimization import make_optimizer, make_schedule
from trustml_cli.training.predict import BATCH, Answers, predict
from trustml_cli.training.trainer import Epoch, Trainer, finite

EXAMPLES = 2**14  # examples of all networks together that are prepared at a time

State = dict[str, Tensor]
"""Weights or buffers by name, those of all networks stacked: [K, ...]."""


@dataclass(frozen=True)
class Member:
    """One of many networks: untrained, with its data set and the random generator as it was after initialization."""

    network: nn.Sequential
    data: Dataset
    random: torch.Generator


def obstacle(trainer: Trainer, members: Sequence[Member], hardware: Hardware) -> str | None:
    """The reason why these networks cannot be trained jointly; None where they can.

    Joint training needs the plain trainer without augmentation and early stopping, fp32, equal batch sizes and numbers
    of steps, and networks of the same layers that behave alike in training and eval mode (no BatchNorm, no dropout).
    """
    if type(trainer) is not GradientTrainer:
        return f"{type(trainer).__name__} trains one network at a time"
    if trainer.flip or trainer.crop_padding or trainer.patience is not None:
        return "augmentation and early stopping are of each network by itself"
    if hardware.precision is not Precision.fp32 or hardware.compile:
        return "they are trained in fp32 and not compiled"
    if len({epoch_size(trainer, member.data.train) for member in members}) > 1:
        return "their training sets make other numbers of steps"
    networks = [member.network for member in members]
    if len({str(network) for network in networks}) > 1 or len({shapes(network) for network in networks}) > 1:
        return "their layers differ"
    if any(isinstance(layer, DataDependentInit) for layer in networks[0].modules()):
        return "they take something from training images before they are trained"
    if not same_in_training(networks[0], members[0].data.shape):
        return "they have layers that do something else in training (BatchNorm, dropout)"
    return None


def epoch_size(trainer: GradientTrainer, train: Split) -> tuple[int, int]:
    """Batches in an epoch, and examples in a batch."""
    steps = max(1, len(train) // trainer.batch_size)
    return min(steps, trainer.steps_per_epoch or steps), min(trainer.batch_size, len(train))


def shapes(network: nn.Module) -> tuple[tuple[str, torch.Size, bool], ...]:
    """Name, shape and `requires_grad` of each parameter; equal for networks that can be trained jointly."""
    return tuple((name, weight.shape, weight.requires_grad) for name, weight in network.named_parameters())


@torch.no_grad()
def same_in_training(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the network's outputs are equal in training and eval mode, and no buffer changes."""
    probe, x = copy.deepcopy(network), torch.rand(8, *shape, generator=torch.Generator().manual_seed(0))
    answers = probe.eval()(x)
    same = torch.equal(probe.train()(x), answers)
    return same and all(torch.equal(a, b) for a, b in zip(probe.buffers(), network.buffers(), strict=True))


def fit_many(trainer: GradientTrainer, members: Sequence[Member], hardware: Hardware) -> list[list[Epoch]]:
    """Train all networks in place; returns the epochs of each.

    Each is trained on the same batches as alone and ends with the same weights up to rounding. The seconds of an epoch
    are divided by the number of networks. Raises `RunFailed` if the loss of one is no longer finite.
    """
    networks: list[nn.Sequential] = [member.network.to(hardware.device).train() for member in members]
    trains = [member.data.train for member in members]
    same_test = all(member.data.test is members[0].data.test for member in members)
    shared = members[0].data.test if same_test else None
    if isinstance(networks[0][-1], FixedFirst):
        trains = [features_of(network, train, hardware) for network, train in zip(networks, trains, strict=True)]
        shared = shared and alike_features(networks, shared, hardware)
        networks = [nn.Sequential(network[-1].head) for network in networks]  # type: ignore[arg-type]
    template, count = copy.deepcopy(networks[0]), len(members)
    weights, buffers = stack_module_state(networks)
    training = {name: weight for name, weight in weights.items() if weight.requires_grad}
    fixed = {name: weight for name, weight in weights.items() if not weight.requires_grad} | buffers
    trains = [train.on(hardware.device) for train in trains]
    steps, size = epoch_size(trainer, trains[0])
    groups = [{"params": list(training.values()), "lr": trainer.lr, "weight_decay": trainer.weight_decay}]
    optimizer = make_optimizer(trainer.optimizer, groups, trainer.momentum)
    schedule = make_schedule(trainer.schedule, optimizer, trainer.epochs * steps)
    history: list[list[Epoch]] = [[] for _ in members]
    shared = shared and shared.on(hardware.device)

    def answer(weights: State, fixed: State, x: Tensor) -> Tensor:
        return functional_call(template, (weights, fixed), (x,))  # type: ignore[no-any-return]

    def loss_of(logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, label_smoothing=trainer.label_smoothing)

    with Progress[None](total=trainer.epochs * steps, desc=f"training {count} networks", unit="step") as bar:
        for epoch in range(1, trainer.epochs + 1):
            start = perf_counter()
            loss_sum = torch.zeros(count, device=hardware.device)
            correct = torch.zeros(count, device=hardware.device)
            orders = [
                torch.randperm(len(train), generator=member.random)[: steps * size]
                for train, member in zip(trains, members, strict=True)
            ]
            with report_out_of_memory(f"lower trainer.batch_size (it is {trainer.batch_size})"):
                for x, y in stacked_batches(trains, orders, size, hardware, trainer.memory_format):
                    logits = vmap(answer)(training, fixed, x)
                    losses = vmap(loss_of)(logits, y)
                    optimizer.zero_grad(set_to_none=True)
                    losses.sum().backward()
                    optimizer.step()
                    lr = float(schedule.get_last_lr()[0])
                    schedule.step()
                    loss_sum += losses.detach() * size
                    correct += (logits.detach().argmax(2) == y).sum(1)
                    bar.update()
            means = [finite(loss) / (steps * size) for loss in loss_sum.tolist()]
            accuracy = correct.mean().item() / (steps * size)
            bar.tell(
                epoch=f"{epoch} of {trainer.epochs}", loss=f"{sum(means) / count:.3f}", accuracy=in_percent(accuracy)
            )
            seconds = (perf_counter() - start) / count
            copy_weights(training, networks)
            if shared is not None:
                given = shared_answers(
                    lambda x: vmap(answer, in_dims=(0, 0, None))(training, fixed, x), shared, hardware
                )
            else:
                given = [predict(member.network, member.data.test, hardware) for member in members]
            for number, answers in enumerate(given):
                history[number].append(
                    Epoch(
                        epoch=epoch,
                        step=epoch * steps,
                        train_loss=means[number],
                        train_accuracy=correct[number].item() / (steps * size),
                        test_loss=finite(answers.loss),
                        test_accuracy=answers.accuracy,
                        lr=lr,
                        seconds=seconds,
                        images=steps * size,
                    )
                )
    return history


def stacked_batches(
    splits: Sequence[Split], orders: Sequence[Tensor], size: int, hardware: Hardware, layout: torch.memory_format
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one batch of every network: inputs [K, size, ...] and labels [K, size], in the given orders."""
    at_once = max(1, EXAMPLES // (len(splits) * size)) * size
    streams = [
        batches(split, at_once, hardware.device, order, memory_format=layout)
        for split, order in zip(splits, orders, strict=True)
    ]
    for parts in zip(*streams, strict=True):
        xs, ys = torch.stack([x for x, _ in parts], 1), torch.stack([y for _, y in parts], 1)
        for x, y in zip(torch.split(xs, size), torch.split(ys, size), strict=True):
            yield x.transpose(0, 1), y.transpose(0, 1)


@torch.no_grad()
def copy_weights(weights: State, networks: Sequence[nn.Module]) -> None:
    """Copy the stacked weights into the networks."""
    for number, network in enumerate(networks):
        for name, weight in network.named_parameters():
            if name in weights:
                weight.copy_(weights[name][number])


@torch.no_grad()
def shared_answers(answer: Callable[[Tensor], Tensor], split: Split, hardware: Hardware) -> list[Answers]:
    """The predictions of each network on the same split; `answer` maps inputs to logits [K, N, classes]."""
    parts = [(answer(x).cpu(), y.cpu()) for x, y in batches(split, BATCH, hardware.device)]
    labels = torch.cat([y for _, y in parts])
    return [Answers(logits, labels) for logits in torch.cat([logits for logits, _ in parts], 1)]


def predicted_by_each(networks: Sequence[nn.Module], split: Split, hardware: Hardware) -> Tensor:
    """The class that each of K networks predicts for each example, int64 [K, N] on the CPU."""
    shared = alike_features(networks, split, hardware)
    if shared is not None:
        networks, split = [network[-1].head for network in networks], shared  # type: ignore[index]
    return torch.stack([predict(network, split, hardware).predicted for network in networks])


def alike_features(networks: Sequence[nn.Module], split: Split, hardware: Hardware) -> Split | None:
    """The fixed features of a split, computed once for all networks; None unless all begin with the same ones."""
    first = networks[0]
    if not (isinstance(first, nn.Sequential) and isinstance(first[-1], FixedFirst)):
        return None
    fronts = [[*network[:-1].buffers(), *network[-1].features.buffers()] for network in networks]  # type: ignore[index]
    same = all(all(map(torch.equal, front, fronts[0])) for front in fronts)
    return features_of(first, split, hardware) if same else None
