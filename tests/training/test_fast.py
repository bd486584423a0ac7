"""trainer=fast: what sets it apart from the loop that it shares, and that it learns in few steps."""

import copy
from dataclasses import fields, replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.configs import choice
from tests.helpers import CPU, Cli, metrics, newest, runs
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.models.fast_cnn import FastCnn
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded
from trustml_cli.training.fast import FastTrainer
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Epoch

pytestmark = pytest.mark.e2e  # trains

YAML = choice("trainer", "fast")
FAST: FastTrainer = build(YAML, "trainer")
MODEL: FastCnn = build(choice("model", "fast_cnn", width=8), "model")
# digits are few and must not be mirrored, so that fewer and longer steps are taken on them as they are
ON_DIGITS = {"batch_size": 64, "lr": 46.0, "epochs": 2, "flip": False, "crop_padding": 0}


def fit(trainer: GradientTrainer, data: Dataset, model: FastCnn = MODEL) -> tuple[nn.Sequential, list[Epoch]]:
    history: list[Epoch] = []
    with seeded(0):
        fresh = model.build(input_spec(data))
        trainer.fit(fresh, data, CPU, history.append)
    return fresh, history


def test_the_published_learning_rates_come_out() -> None:
    network = MODEL.build(describe_images())
    rest, biases = FAST.groups(network)
    assert rest["lr"] == pytest.approx(1.5)  # 11.5 / (1 + 1 / (1 − 0.85))
    assert biases["lr"] == pytest.approx(96.0)  # 64 times that
    for group in (rest, biases):  # both lose 0.0153 / (1 + 1 / 0.15) of themselves in a step of 1,024
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.0153 * 0.15 / 1.15)
    shifts = [layer.bias for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(shifts) == 6
    assert [id(bias) for bias in biases["params"]] == [id(bias) for bias in shifts]
    assert len(rest["params"]) + 6 == len(list(network.parameters()))
    assert id(network.network[0].bias) in [id(weight) for weight in rest["params"]]  # no BatchNorm's


def describe_images() -> Any:
    split = InMemory(torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8) % 2)
    return input_spec(Dataset(split, split, ("a", "b"), fingerprint="made up", source="made up"))


@pytest.mark.parametrize(
    ("batch_size", "momentum", "lr"), [(512, 0.85, 0.75), (1024, 0.5, 11.5 / 3), (64, 0.0, 0.359375)]
)
def test_the_length_of_steps_goes_by_examples_not_by_momentum(batch_size: int, momentum: float, lr: float) -> None:
    trainer = replace(FAST, batch_size=batch_size, momentum=momentum)
    group = trainer.groups(nn.Linear(2, 2))[0]
    assert group["lr"] == pytest.approx(lr)
    decayed = group["lr"] * group["weight_decay"] * (1 + 1 / (1 - momentum)) * 1024 / batch_size
    assert decayed == pytest.approx(0.0153)


def test_each_image_is_mirrored_in_every_other_epoch() -> None:
    numbers = torch.arange(200, dtype=torch.uint8)
    images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    images[:, 0, :, 0], images[:, 0, :, 7] = numbers[:, None], 255  # the bright side, and the number on the other
    split = InMemory(images, numbers)
    trainer = replace(FAST, batch_size=50, crop_padding=0)

    def mirrored(seed: int) -> list[dict[int, bool]]:
        epochs = []
        with seeded(seed):
            for epoch in range(1, 5):
                shown = list(trainer.training_batches(split, 4, epoch, CPU))
                epochs.append({int(n): bool(x[0, 0, 0] == 1) for xs, ns in shown for x, n in zip(xs, ns, strict=True)})
        return epochs

    first, second, third, fourth = mirrored(seed=0)
    assert len(first) == 200
    assert 70 < sum(first.values()) < 130
    assert second == {number: not was for number, was in first.items()}
    assert (third, fourth) == (first, second)
    assert mirrored(seed=1)[0] != first


def test_digits_are_learnt_in_fewer_steps_than_by_default(digits: Dataset) -> None:
    _, fast = fit(replace(FAST, **ON_DIGITS), digits)
    default = build(choice("trainer", "default", epochs=2), "trainer")
    assert default.batch_size == ON_DIGITS["batch_size"]
    _, usual = fit(default, digits)
    assert fast[-1].test_accuracy > 0.8
    assert fast[-1].test_accuracy > usual[-1].test_accuracy


def test_images_are_looked_at_before_training_and_never_again(digits: Dataset) -> None:
    fresh = MODEL.build(input_spec(digits))
    untouched = copy.deepcopy(fresh)
    untouched[-1].initialize_from(untouched[0](digits.train.inputs.float() / 255))  # fewer than 5,000: all of them
    trainer = replace(FAST, **{**ON_DIGITS, "epochs": 1, "steps_per_epoch": 5})
    trainer.fit(fresh, digits, CPU, lambda epoch: None)
    whiten, before = fresh.network[0], untouched.network[0]
    products = [weight.flatten(1).T @ weight.flatten(1) for weight in (whiten.weight, before.weight)]
    torch.testing.assert_close(*products, rtol=1e-3, atol=1e-2)
    assert not torch.equal(whiten.bias, before.bias)

    again = MODEL.build(input_spec(digits))
    again.load_state_dict(fresh.state_dict())
    torch.testing.assert_close(predict(again, digits.test, CPU).logits, predict(fresh, digits.test, CPU).logits)


def test_lookahead_holds_the_weights_back(digits: Dataset) -> None:
    short = {**ON_DIGITS, "epochs": 1, "steps_per_epoch": 6}
    held, free = (fit(replace(FAST, **short, lookahead_every=every), digits)[0] for every in (5, None))
    with seeded(0):
        start = MODEL.build(input_spec(digits)).network[-1].weight
    assert 0 < (held.network[-1].weight - start).norm() < 0.8 * (free.network[-1].weight - start).norm()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("optimizer", "adam"), ("optimizer", "adamw"), ("bias_lr", 0), ("bias_lr", inf), ("bias_lr", nan)],
        *[("lookahead_every", 0), ("lookahead_every", 1.5), ("lookahead_decay", -0.1), ("lookahead_decay", 1.1)],
        *[("lookahead_decay", nan), ("momentum", 1.0), ("epochs", 0)],
    ],
)
def test_a_bad_value_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^trainer\.{key}: "):
        build(OmegaConf.merge(YAML, {key: value}), "trainer")


def test_the_usual_trainer_has_none_of_its_fields() -> None:
    """Networks are kept under the fields of their trainer: what this one needs must not have others trained anew."""
    own = {field.name for field in fields(FastTrainer)} - {field.name for field in fields(GradientTrainer)}
    assert own == {"bias_lr", "lookahead_every", "lookahead_decay"}


def test_the_command_line_trains_and_attacks_the_same_network(trustml: Cli, tmp_path: Path) -> None:
    words = ["model=fast_cnn", "model.width=8", "trainer=fast", "dataset=digits"]
    short = [
        "trainer.batch_size=64", "trainer.epochs=1", "trainer.lr=46", "trainer.flip=false", "trainer.crop_padding=1",
    ]  # fmt: skip
    tables = []
    for task in (["task=train"], ["task=fgsm", "task.epsilon=[0,0.1]", "task.check_images=0", "task.examples=1"]):
        answer = trustml(*task, *words, *short)
        assert (answer.returncode, answer.stderr) == (0, "")
        tables.append(metrics(newest(tmp_path)))
    train, attack = tables
    assert train.test_accuracy_ci_low[0] > 0.3
    robust = attack.set_index("epsilon").robust_accuracy
    assert robust[0.0] == train.test_accuracy[0]
    assert robust[0.1] < robust[0.0]
    assert all((run / "history.csv").exists() for run in runs(tmp_path))
