"""The exponential moving average of weights, against numbers worked out by hand and a loop of our own."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.configs import choice
from tests.helpers import CPU
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded
from trustml_cli.training.averaged import AveragedTrainer
from trustml_cli.training.averaging import ExponentialAverage
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.trainer import Epoch


def averaged(**changes: object) -> AveragedTrainer:
    node = {**choice("trainer", "default"), **choice("trainer", "averaged", **changes)}
    built = build({key: value for key, value in node.items() if key != "defaults"}, "trainer")
    assert isinstance(built, AveragedTrainer)
    return built


def test_the_network_ends_with_the_average_worked_out_by_hand() -> None:
    network, after = nn.Linear(1, 1, bias=False), []
    average = ExponentialAverage(network, decay=0.75, steps=3)
    for value in (8.0, 4.0, 0.0):
        network.weight.data.fill_(value)
        average.step()
        after.append(network.weight.item())
    # 8, then 0.75 · 8 + 0.25 · 4 = 7, then 0.75 · 7
    assert after == [8.0, 4.0, 5.25]


def test_statistics_are_averaged_too_and_counters_stay_whole() -> None:
    network = nn.BatchNorm1d(1).train()
    average = ExponentialAverage(network, decay=0.5, steps=2)
    for mean in (10.0, 30.0):
        network(torch.tensor([[mean - 1], [mean + 1]]))
        average.step()
    assert network.running_mean is not None
    # running means 1 and 0.9 + 3 = 3.9, of which the average is 2.45
    assert network.running_mean.item() == pytest.approx(2.45)
    assert network.num_batches_tracked.dtype == torch.int64


def test_the_trainer_ends_with_the_average_and_is_judged_by_it(digits: Dataset) -> None:
    def fit(trainer: AveragedTrainer) -> tuple[torch.Tensor, list[Epoch]]:
        history: list[Epoch] = []
        with seeded(0):
            network = build(choice("model", "mlp"), "model").build(input_spec(digits))
            trainer.fit(network, digits, CPU, history.append)
        return torch.cat([weight.flatten() for weight in network.parameters()]), history

    short = averaged(epochs=2, steps_per_epoch=10, schedule="constant")
    (last, plain), (average, history) = fit(replace(short, decay=0.0)), fit(replace(short, decay=0.9))
    assert history[0].test_loss == plain[0].test_loss, "until the last step it trains as usual"
    assert history[1].test_loss != plain[1].test_loss
    with seeded(0):
        network = build(choice("model", "mlp"), "model").build(input_spec(digits))
    start = torch.cat([weight.flatten() for weight in network.parameters()])
    assert 0.3 < (average - start).norm() / (last - start).norm() < 0.95, "the average lags behind"


@pytest.mark.parametrize(("key", "value"), [("decay", 1.0), ("decay", -0.1), ("patience", 3)])
def test_a_bad_value_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^trainer\.{key}: must be"):
        averaged(**{key: value})
