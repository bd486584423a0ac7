"""What layers cost, against hand-worked sizes."""

import torch
from torch import nn

from tests.models.signs import images, named
from trustml_cli.models import cost as cost_module
from trustml_cli.models.cost import costs, in_turn
from trustml_cli.models.packed import in_layers, pack


def test_bytes_are_those_of_weights_and_of_one_images_activations() -> None:
    network, shape = named("28 px")
    rows = costs(in_layers(network), pack(network, shape), images(shape), n=1)
    assert [row.layer for row in rows] == ["1", "2", "3", "4", "5", "6", "7", "all"]
    second, sixth, whole = rows[1], rows[5], rows[-1]
    assert second.kind == "convolution 3×3, stride 2"
    assert second.shape == "32×28×28 → 64×14×14"
    assert second.float32_bytes == 4 * (64 * 32 * 9 + 5 * 64)  # weights; bias, mean, variance, gamma, beta
    assert second.packed_bytes == 8 * 9 * 64 + 4 * 64 + 24  # a word for each tap and output; thresholds; geometry
    assert second.memory_ratio == second.float32_bytes / second.packed_bytes
    assert second.float32_activation_bytes == 4 * 64 * 14 * 14
    assert second.packed_activation_bytes == 64 * 14 * 14 // 8
    assert (sixth.kind, sixth.shape) == ("linear", "128×2×2 → 100")
    assert sixth.packed_activation_bytes == 16
    assert [row.computes_in for row in rows] == ["float32", *["bits"] * 6, "both"]
    assert whole.packed_bytes == sum(row.packed_bytes for row in rows[:-1])
    assert whole.float32_bytes == sum(row.float32_bytes for row in rows[:-1])
    assert {(row.n, row.batch, row.threads) for row in rows} == {(1, 20, torch.get_num_threads())}
    assert all(row.speedup == row.float32_ms / row.packed_ms > 0 for row in rows)


def test_runs_take_turns_and_medians_are_compared(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    clock, order = [0.0], []
    monkeypatch.setattr(cost_module, "perf_counter", lambda: clock[0])

    def run(name: str, seconds: list[float]) -> None:
        order.append(name)
        clock[0] += seconds.pop(0)

    slow, quick = [0.003, 9.0, 0.002], [0.001, 0.001, 5.0]
    medians = in_turn([lambda: run("slow", slow), lambda: run("quick", quick)], 3)
    assert [round(value, 6) for value in medians] == [3, 1]
    assert order == ["slow", "quick"] * 3


def test_a_layer_is_called_by_its_kernel_and_step() -> None:
    assert cost_module.kind(nn.Sequential(nn.Flatten(), nn.Linear(2, 2))) == "linear"
    assert cost_module.kind(nn.Sequential(nn.Conv2d(1, 1, (1, 3), 2))) == "convolution 1×3, stride 2"
