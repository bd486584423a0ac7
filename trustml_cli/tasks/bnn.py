"""task=bnn: accuracy of a classifier with binary activations, and optionally binary weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, lower, neither, sometimes
from trustml_cli.metrics.intervals import proportion
from trustml_cli.models.binary import Activation, BinarizableModel, Sign
from trustml_cli.models.model import Model
from trustml_cli.plots.bnn import pre_activation_histograms
from trustml_cli.system.distribution import needing
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Trainer

LOOKED_AT = 200  # test images whose pre-activations are drawn


class Export(Enum):
    """The form in which the binary network is exported."""

    packed = "packed"
    """Bit-packed, with dot products by XOR and popcount."""


@dataclass(frozen=True, kw_only=True)
class Binarise:
    """Train the same model once with each `activation` in its hidden layers, and compare.

    With `binary_weights` the sign network also uses the signs of its weights. `export` writes that network in another
    form and compares the two.
    """

    columns: ClassVar[Columns] = (
        *conditions("activation"),
        *higher("train_accuracy"),
        *headline(higher("test_accuracy")),
        *neither("binary_weights", "epochs"),
        *lower("seconds"),
        *sometimes((*higher("packed_agreement", "packed_accuracy"), *neither("float32_bytes"), *lower("packed_bytes"))),
    )

    activation: list[Activation]
    binary_weights: bool
    export: Export | None

    def __post_init__(self) -> None:
        if not self.activation:
            raise ValueError("activation: needs at least one of relu, sign")
        if self.binary_weights and Activation.sign not in self.activation:
            raise ValueError("binary_weights: are those of the sign network; add sign to task.activation")
        if self.export is Export.packed and not self.binary_weights:
            raise ValueError("export: packed needs a network of signs throughout; add task.binary_weights=true")

    def __call__(self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer) -> None:
        """Write one row for each activation, then plot the training curves and the pre-activations."""
        name = context.record.choices["model"]
        if not isinstance(model, BinarizableModel):
            raise InputError(f"model: {name} has no activation to choose; use model=mnist_cnn")
        if model.checkpoint is not None:
            raise InputError("model.checkpoint: this task trains its networks itself; leave it null")
        data = context.load(dataset)
        export = exporter(model, data) if self.export is Export.packed else None
        shown, _ = next(batches(data.test, LOOKED_AT, context.hardware.device))
        pre_activations = {}
        for activation in dict.fromkeys(self.activation):
            label, binary = activation.value, self.binary_weights and activation is Activation.sign
            variant = replace(model, activation=activation, binary_weights=binary)
            trained = context.train_or_load(context.spec(data, variant, trainer), stage=label)
            train, test = (predict(trained.network, split, context.hardware) for split in (data.train, data.test))
            context.record.metrics(
                {"activation": label},
                **proportion("train_accuracy", int(train.correct.sum()), len(train.labels)),
                **proportion("test_accuracy", int(test.correct.sum()), len(test.labels)),
                binary_weights=binary,
                epochs=trained.history[-1].epoch,
                seconds=sum(epoch.seconds for epoch in trained.history),
                **(export(context, trained.network, data) if export and binary else {}),
            )
            seen = at_activations(trained.network, shown)
            pre_activations[label] = [given for given, _ in seen]
            if activation is Activation.sign:
                check_two_values(context, [made for _, made in seen])
        subject = context.record.subject
        context.plot_curves()
        context.record.plot("pre_activations", pre_activation_histograms(pre_activations, subject))


def exporter(model: BinarizableModel, data: Dataset) -> Callable[..., dict[str, Any]]:
    """`export_packed`, after a check that `model` can be packed; imported here because numba is an optional extra."""
    with needing("packed", "task.export=packed"):
        from trustml_cli.tasks.packing import check_packable, export_packed
    check_packable(replace(model, activation=Activation.sign, binary_weights=True), data)
    return export_packed


@torch.no_grad()
def at_activations(network: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Input and output of each activation layer for images x, in order of execution, on the CPU."""
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, given, made: seen.append((given[0].cpu(), made.cpu())))
        for layer in network.modules()
        if isinstance(layer, nn.ReLU | Sign)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return seen


def check_two_values(context: Context, outputs: list[Tensor]) -> None:
    """Check that all hidden activations of a sign network are +1 or −1."""
    other = sum(int((values.abs() != 1).sum()) for values in outputs)
    total = sum(values.numel() for values in outputs)
    context.record.check("hidden values are +1 or -1", other == 0, f"{other:,} of {total:,} are something else")
