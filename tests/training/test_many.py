"""Many networks at once: equal to one after the other, and each in the store by itself."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice
from tests.helpers import CPU
from tests.tasks.parts import TRAINER
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import seeded
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.many import Member, alike_features, fit_many, obstacle, predicted_by_each
from trustml_cli.training.optimization import Optimizer
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Epoch

COUNT = 3


def members(data: Dataset, model: str = "mlp", **changes: Any) -> list[Member]:
    """Fresh networks, each with a third of the images left out, as they are before they are trained alone."""
    found = []
    for number in range(COUNT):
        kept = torch.arange(64)[torch.arange(64) % COUNT != number][:40]
        own = data.derive(f"without {number}", train=data.train.subset(kept))
        with seeded(number):
            network = build(choice("model", model, **changes), "model").build(input_spec(own))
            random = torch.Generator()
            random.set_state(torch.get_rng_state())
        found.append(Member(network, own, random))
    return found


def alone(member: Member, trainer: Any) -> list[Epoch]:
    history: list[Epoch] = []
    with seeded(0):
        torch.set_rng_state(member.random.get_state())
        trainer.fit(member.network, member.data, CPU, history.append)
    return history


def weights(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@pytest.mark.parametrize(
    ("model", "changes"),
    [("logistic", {}), ("mlp", {"hidden": [8]}), ("mnist_cnn", {}), ("fixed_features", {})],
    ids=["logistic", "mlp", "mnist_cnn", "fixed_features"],
)
def test_networks_trained_at_once_are_those_trained_one_after_the_other(
    model: str, changes: dict[str, Any], tiny_data: Dataset
) -> None:
    # Adam divides by the size of a gradient, so that one that is nothing but rounding makes a whole step: SGD
    trainer = replace(TRAINER, epochs=2, optimizer=Optimizer.sgd, lr=0.02, label_smoothing=0.1)
    together, singly = members(tiny_data, model, **changes), members(tiny_data, model, **changes)
    before = [weights(member.network) for member in together]
    assert obstacle(trainer, together, CPU) is None
    histories = fit_many(trainer, together, CPU)
    for one, other, start, history in zip(together, singly, before, histories, strict=True):
        expected = alone(other, trainer)
        torch.testing.assert_close(weights(one.network), weights(other.network), rtol=1e-4, atol=1e-5)
        assert (weights(one.network) - start).abs().max() > 1e-3
        assert [row.images for row in history] == [row.images for row in expected] == [32, 32]
        assert [row.lr for row in history] == [row.lr for row in expected]
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            values = ([getattr(row, name) for row in rows] for rows in (history, expected))
            assert next(values) == pytest.approx(next(values), rel=1e-4)
    assert not torch.equal(weights(together[0].network), weights(together[1].network))


@pytest.mark.parametrize(
    ("changes", "model", "words"),
    [
        ({}, "cifar_cnn", "BatchNorm"),
        ({"flip": True}, "mlp", "augmentation"),
        ({"patience": 2}, "mlp", "early stopping"),
        ({"batch_size": 37}, "mlp", None),
    ],
)
def test_what_cannot_be_trained_at_once_is_said(
    changes: dict[str, Any], model: str, words: str | None, tiny_data: Dataset
) -> None:
    reason = obstacle(replace(TRAINER, **changes), members(tiny_data, model), CPU)
    assert reason is None if words is None else words in str(reason)


def test_dropout_and_other_sizes_are_obstacles(tiny_data: Dataset) -> None:
    assert "dropout" in str(obstacle(TRAINER, members(tiny_data, dropout=0.5), CPU))
    given = members(tiny_data)
    less = given[0].data.derive("less", train=given[0].data.train.subset(torch.arange(17)))
    assert "steps" in str(obstacle(TRAINER, [replace(given[0], data=less), *given[1:]], CPU))
    assert "layers" in str(obstacle(TRAINER, [*given[:2], members(tiny_data, hidden=[9])[2]], CPU))


def test_a_loss_that_is_lost_ends_the_training_of_all(tiny_data: Dataset) -> None:
    with pytest.raises(RunFailed, match=r"smaller trainer\.lr"):
        fit_many(replace(TRAINER, optimizer=Optimizer.sgd, lr=1e38), members(tiny_data), CPU)


@pytest.mark.parametrize("changes", [{}, {"normalization": "dataset"}], ids=["alike", "normalized by their own images"])
def test_many_networks_are_asked_at_once(changes: dict[str, Any], tiny_data: Dataset) -> None:
    networks = [member.network for member in members(tiny_data, "fixed_features", **changes)]
    assert (alike_features(networks, tiny_data.test, CPU) is None) == bool(changes)
    expected = [predict(network, tiny_data.test, CPU).predicted.tolist() for network in networks]
    assert predicted_by_each(networks, tiny_data.test, CPU).tolist() == expected
