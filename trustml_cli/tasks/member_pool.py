"""The examples of task=membership, and the networks that are trained on some of them."""

from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from trustml_cli.data.dataset import InMemory, Split, random_indices
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context
from trustml_cli.training.spec import TrainingSpec

FEWEST = 8  # members, and others; fewer give no figure worth a row


class Members(Enum):
    """Which examples of the pool a victim was trained on."""

    half = "half"
    """A random half for each network; each network is the victim once, and the others are its references."""
    train = "train"
    """Training images; the others are test images. There is one victim: the model itself, or a checkpoint."""


@dataclass(frozen=True)
class Pool:
    """Examples that may be members, and K networks trained on some of them.

    `inside` says which examples of `split` each network was trained on, bool [K, N]. The first `victims` networks are
    attacked, each with the help of others. `outside` are examples that no network was trained on.
    """

    split: Split
    inside: Tensor
    specs: list[TrainingSpec]
    victims: int
    outside: Split


def random_halves(context: Context, spec: TrainingSpec, size: int | None, references: int) -> Pool:
    """`size` training images (None: all), and 1 + `references` networks like `spec`, each trained on half of them.

    The halves are drawn independently of each other, so that how many references have an example does not tell whether
    the victim has it, as it would if each example were in half of the networks.
    """
    data = spec.data
    seed = context.seed_for("pool", 1)
    split = data.train.subset(random_indices(data.train, len(data.train) if size is None else size, seed))
    inside = halves(context, len(split), 1 + references)
    if len(split) // 2 < FEWEST:
        raise InputError(f"task.pool: {len(split)} images make no two halves of {FEWEST}; use more")
    specs = [trained_on(context, spec, split, chosen, number) for number, chosen in enumerate(inside, start=1)]
    return Pool(split, inside, specs, len(specs), data.test)


def training_images(context: Context, spec: TrainingSpec, size: int | None, references: int) -> Pool:
    """As many training as test images, `size` in all (None: as many as there are); the victim is that of `spec`.

    The references are trained on random halves of both. `outside` are the other test images.
    """
    data = spec.data
    each = min(len(data.train), len(data.test), len(data.train) if size is None else size // 2)
    if each < FEWEST:
        raise InputError(f"task.pool: needs at least {FEWEST} training and {FEWEST} test images, got {each}; use more")
    members = data.train.subset(random_indices(data.train, each, context.seed_for("pool", 1)))
    tests = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(context.seed_for("pool", 2)))
    others, outside = data.test.subset(tests[:each].sort().values), data.test.subset(tests[each:])
    split = in_memory(members, others)
    inside = torch.cat([(torch.arange(2 * each) < each)[None], halves(context, 2 * each, references)])
    specs = [spec]
    specs += [trained_on(context, spec, split, chosen, number) for number, chosen in enumerate(inside[1:], start=1)]
    return Pool(split, inside, specs, 1, outside)


def halves(context: Context, n: int, count: int) -> Tensor:
    """`count` independent random halves of n examples, bool [count, n]."""
    orders = [
        torch.randperm(n, generator=torch.Generator().manual_seed(context.seed_for("half", number)))
        for number in range(1, count + 1)
    ]
    return torch.stack([order < n // 2 for order in orders]) if orders else torch.zeros(0, n, dtype=torch.bool)


def trained_on(context: Context, spec: TrainingSpec, split: Split, chosen: Tensor, number: int) -> TrainingSpec:
    """`spec` with the `chosen` (bool [N]) examples of `split` as training set, a seed of its own and no checkpoint."""
    note = f"half {number} of {len(split)}, seed={context.seed}"
    data = spec.data.derive(note, train=split.subset(chosen.nonzero()[:, 0]))
    return replace(spec, data=data, model=spec.model.fresh(), seed=context.seed_for("member", number))


def in_memory(*splits: Split) -> InMemory:
    """The examples of all `splits`, one after the other, in memory."""
    parts = [batch for split in splits for batch in split.stream(torch.arange(len(split)), 1000)]
    return InMemory(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
