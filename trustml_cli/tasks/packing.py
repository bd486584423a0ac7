"""Export of a trained binary network to bits: its file, equivalence checks and costs. Needs the extra `packed`."""

import copy
import logging
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset
from trustml_cli.metrics.intervals import proportion
from trustml_cli.models.binary import Sign
from trustml_cli.models.cost import costs
from trustml_cli.models.model import Model
from trustml_cli.models.packed import from_bits, in_layers, load_packed, pack
from trustml_cli.plots.packed import packed_layers
from trustml_cli.system.errors import prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.tasks.context import Context
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
TIMINGS = 15  # timed runs of each layer in each form
CLOSE = 1e-5  # relative and absolute tolerance of logits


def check_packable(model: Model, data: Dataset) -> None:
    """Raise `InputError` where the networks that `model` builds cannot be packed."""
    with prefix_errors("model"), seeded(0):
        pack(model.build(input_spec(data)), data.shape)


@torch.no_grad()
def export_packed(context: Context, network: nn.Module, data: Dataset) -> dict[str, Any]:
    """Write the packed network and packed.csv; returns further values for the row of metrics.csv.

    The packed network is read back from its file, checked on all test images against float32, and timed, on the CPU.
    """
    network = copy.deepcopy(network).cpu()
    packed = load_packed(context.record.artifact("packed", pack(network, data.shape).state_dict()))
    values = check_equal(context, network, packed, data)
    x, _ = next(batches(data.test, BATCH, CPU))
    rows = costs(in_layers(network), packed, x, TIMINGS)
    context.record.table("packed", [asdict(row) for row in rows])
    subject = context.record.subject
    context.record.plot("packed", packed_layers(rows, subject))
    whole = rows[-1]
    log.info(
        "packed: 1/%.1f of the memory, %.1f times as fast as float32 on a batch of %d, n = %d",
        whole.memory_ratio, whole.speedup, whole.batch, whole.n,
    )  # fmt: skip
    return {**values, "float32_bytes": whole.float32_bytes, "packed_bytes": whole.packed_bytes}


def check_equal(context: Context, network: nn.Module, packed: nn.Sequential, data: Dataset) -> dict[str, Any]:
    """Check that both forms compute the same hidden values, logits and class for every test image."""
    hidden: list[Tensor] = []
    for layer in network.modules():
        if isinstance(layer, Sign):
            layer.register_forward_hook(lambda _, given, made: hidden.append(made))
    agreeing, right, values, differing, apart, close = 0, 0, 0, 0, 0.0, True
    for x, y in batches(data.test, BATCH, CPU):
        hidden.clear()
        expected, made = network(x), x
        for layer, signs in zip(packed[:-1], hidden, strict=True):
            made = layer(made)
            differing += int((from_bits(made, signs.shape[1]).view_as(signs) != signs).sum())
            values += signs.numel()
        logits = packed[-1](made)
        close = close and torch.allclose(logits, expected, rtol=CLOSE, atol=CLOSE)
        apart = max(apart, (logits - expected).abs().max().item())
        agreeing += int((logits.argmax(1) == expected.argmax(1)).sum())
        right += int((logits.argmax(1) == y).sum())
    n = len(data.test)
    check = context.record.check
    check("packed hidden values are those of float32", differing == 0, f"{differing:,} of {values:,} differ")
    check("packed logits are those of float32", close, f"at most {apart:.2g} apart")
    check("packed answers are those of float32", agreeing == n, f"{agreeing:,} of {n:,} test images agree")
    return {**proportion("packed_agreement", agreeing, n), **proportion("packed_accuracy", right, n)}
