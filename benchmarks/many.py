"""Sixteen networks on halves of the digits, trained at once and one after the other."""

from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from benchmarks.interleaved import Ratio, ratios
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.models.binary import Activation
from trustml_cli.models.blur import Pooling
from trustml_cli.models.dense import Logistic, Mlp
from trustml_cli.models.mnist_cnn import MnistCnn
from trustml_cli.models.model import InputSpec, Model, Normalization
from trustml_cli.system.hardware import Hardware, Precision, keep_freed_memory, seeded
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.many import Member, fit_many, obstacle
from trustml_cli.training.optimization import Optimizer, Schedule

COUNT, EPOCHS = 16, 3
CPU = Hardware(torch.device("cpu"), Precision.fp32)
TRAINER = GradientTrainer(
    epochs=EPOCHS, steps_per_epoch=None, batch_size=64, optimizer=Optimizer.sgd, lr=0.05, momentum=0.9,
    weight_decay=0.0, schedule=Schedule.one_cycle, label_smoothing=0.0, flip=False, crop_padding=0, patience=None,
    validation_fraction=0.1, channels_last=True, log_every=None, log_images=500,
)  # fmt: skip
KEYS: dict[str, Any] = {
    "normalization": Normalization.none, "checkpoint": None, "checkpoint_key": None, "checkpoint_prefix": None,
    "train": False,
}  # fmt: skip
MODELS: dict[str, Model] = {
    "`logistic`": Logistic(**KEYS),
    "`mlp` with 32 units": Mlp(hidden=[32], dropout=0.0, **KEYS),
    "`mlp`": Mlp(hidden=[256, 128], dropout=0.0, **KEYS),
    "`mnist_cnn`": MnistCnn(pooling=Pooling.plain, activation=Activation.relu, binary_weights=False, **KEYS),
}


def many(n: int) -> list[Ratio]:
    """Each kind of network; the weights of both ways are equal within rounding."""
    keep_freed_memory()
    bunch = load_digits()
    images = torch.tensor(bunch.images * (255 / 16)).round().to(torch.uint8)[:, None]
    labels = torch.tensor(bunch.target)
    test = InMemory(images[1347:], labels[1347:])
    halves = []
    for number in range(COUNT):
        rows = torch.randperm(1347, generator=torch.Generator().manual_seed(number))[:673]
        train = InMemory(images[rows], labels[rows])
        halves.append(Dataset(train, test, tuple("0123456789"), fingerprint=f"half {number}", source="scikit-learn"))
    found = []
    for name, model in MODELS.items():
        together, alone = ways(model, halves)
        torch.testing.assert_close(together(), alone(), rtol=1e-3, atol=1e-3)
        what = f"{COUNT} networks at once, {name}, {EPOCHS} epochs of 673 digits"
        found += ratios(what, together, {"one after the other": alone}, n)
    return found


def ways(model: Model, halves: list[Dataset]) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Both ways to train all of them; each returns all weights in a row."""

    def members() -> list[Member]:
        fresh = []
        for number, half in enumerate(halves):
            random = torch.Generator().manual_seed(number)
            with seeded(number):
                fresh.append(Member(model.build(InputSpec((1, 8, 8), 10, (0.5,), (0.5,))), half, random))
        return fresh

    def weights(fresh: list[Member]) -> Tensor:
        return torch.cat([weight.detach().flatten() for each in fresh for weight in each.network.parameters()])

    def together() -> Tensor:
        fresh = members()
        assert obstacle(TRAINER, fresh, CPU) is None
        fit_many(TRAINER, fresh, CPU)
        return weights(fresh)

    def alone() -> Tensor:
        fresh = members()
        for each in fresh:
            with seeded(0):
                torch.set_rng_state(each.random.get_state())
                TRAINER.fit(each.network, each.data, CPU, lambda epoch: None)
        return weights(fresh)

    return together, alone
