"""The gradient loop: that it learns, repeats itself, stops in time, and says what is wrong."""

import copy
from dataclasses import fields, replace
from math import cos, inf, nan, pi
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tests.configs import choice
from tests.helpers import CPU, FRESH
from trustml_cli.attacks.attack import Norm
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, InMemory, Split
from trustml_cli.defences.free import FreeTraining
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.dense import Mlp
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.system.errors import InputError, RunFailed
from trustml_cli.system.hardware import Hardware, Precision, seeded
from trustml_cli.system.progress import Progress
from trustml_cli.training import optimization
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.optimization import Optimizer, Schedule, triangle
from trustml_cli.training.predict import mean_score, predict
from trustml_cli.training.trainer import Epoch

pytestmark = pytest.mark.e2e  # trains

YAML = choice("trainer", "default")
DEFAULT: GradientTrainer = build(YAML, "trainer")
SHORT = replace(DEFAULT, epochs=8, batch_size=16, lr=0.03)


def network(data: Dataset, hidden: int = 8) -> nn.Sequential:
    model = Mlp(normalization=Normalization.dataset, **FRESH, hidden=[hidden], dropout=0.0)
    return model.build(InputSpec(data.shape, len(data.classes), mean=(0.4,), std=(0.3,)))


def fit(
    trainer: GradientTrainer, data: Dataset, *, seed: int = 0, hardware: Hardware = CPU
) -> tuple[nn.Sequential, list[Epoch]]:
    """A network trained from scratch, and what was reported."""
    history: list[Epoch] = []
    with seeded(seed):
        fresh = network(data)
        trainer.fit(fresh, data, hardware, history.append)
    return fresh, history


def weights(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@pytest.fixture
def noise() -> Dataset:
    """Labels that do not follow from the images: whatever is learnt from it is wrong elsewhere."""
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (120, 1, 8, 8), generator=random, dtype=torch.uint8)
    split = InMemory(images, torch.randint(0, 2, (120,), generator=random))
    return Dataset(split, split, ("heads", "tails"), fingerprint="noise", source="made up")


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_every_optimiser_and_schedule_learns_to_tell_dark_from_bright(
    optimizer: Optimizer, schedule: Schedule, tiny_data: Dataset
) -> None:
    trained, history = fit(replace(SHORT, optimizer=optimizer, schedule=schedule), tiny_data)
    assert [(row.epoch, row.images, row.validation_loss) for row in history] == [(n, 64, None) for n in range(1, 9)]
    assert history[-1].train_loss < history[0].train_loss / 2
    assert (history[-1].train_accuracy, history[-1].test_accuracy) == (1.0, 1.0)
    answers = predict(trained, tiny_data.test, CPU)
    assert (answers.loss, answers.accuracy) == (history[-1].test_loss, history[-1].test_accuracy)


def test_logged_iterations_are_measured_on_the_batch_and_the_test_images_and_change_nothing(tiny_data: Dataset) -> None:
    plain, without = fit(SHORT, tiny_data)
    logged, history = fit(replace(SHORT, log_every=2, log_images=len(tiny_data.test)), tiny_data)
    assert torch.equal(weights(plain), weights(logged))
    assert [row.step for row in history] == [row.step for row in without] == [4 * epoch for epoch in range(1, 9)]
    assert not any(row.iterations for row in without)
    for epoch in history:
        assert [row.step for row in epoch.iterations] == [epoch.step - 2, epoch.step]
        last = epoch.iterations[-1]
        assert (last.test_loss, last.test_accuracy, last.lr) == (epoch.test_loss, epoch.test_accuracy, epoch.lr)
        assert last.train_accuracy * 16 == pytest.approx(round(last.train_accuracy * 16)), "a batch of 16"
    assert history[0].iterations[0].train_loss > 10 * history[-1].iterations[-1].train_loss
    _, (first, *_) = fit(replace(SHORT, log_every=1, log_images=1), tiny_data)
    assert {row.test_accuracy for row in first.iterations} <= {0.0, 1.0}, "of one image"
    assert sum(row.train_loss for row in first.iterations) / 4 == pytest.approx(first.train_loss)


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16])
def test_lower_precision_learns_too_and_differs_from_fp32(precision: Precision, tiny_data: Dataset) -> None:
    trained, history = fit(SHORT, tiny_data, hardware=Hardware(torch.device("cpu"), precision))
    assert history[-1].test_accuracy == 1.0
    assert {weight.dtype for weight in trained.parameters()} == {torch.float32}
    assert not torch.equal(weights(trained), weights(fit(SHORT, tiny_data)[0]))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_data: Dataset) -> None:
    trainer = replace(SHORT, epochs=2, flip=True, crop_padding=1)
    first, again, other = (weights(fit(trainer, tiny_data, seed=seed)[0]) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("look_every", "times"), [(1, 2 * 4 + 2), (50, 2 * 1 + 2)])
def test_training_tells_epoch_loss_and_accuracy(
    look_every: int, times: int, tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, str]] = []
    monkeypatch.setattr(optimization, "LOOK_EVERY", look_every)
    monkeypatch.setattr(Progress, "stale", False)
    monkeypatch.setattr(Progress, "tell", lambda self, **figures: told.append(figures))
    history = fit(replace(SHORT, epochs=2), tiny_data)[1]
    assert [each["epoch"] for each in told if "epoch" in each] == ["1 of 2", "2 of 2"]
    losses = [each for each in told if "loss" in each]
    assert len(losses) == times
    assert losses[-1] == {"loss": f"{history[-1].train_loss:.3f}", "accuracy": in_percent(history[-1].train_accuracy)}


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_loss_that_is_lost_ends_the_run_and_names_the_learning_rate(epochs: int, tiny_data: Dataset) -> None:
    trainer = replace(
        SHORT, epochs=epochs, steps_per_epoch=1, lr=1e38, optimizer=Optimizer.sgd, schedule=Schedule.constant
    )
    with pytest.raises(RunFailed, match=r"diverged.*; try a smaller trainer\.lr"):
        fit(trainer, tiny_data)


def test_early_stopping_keeps_the_weights_with_the_best_validation_loss(noise: Dataset) -> None:
    trainer = replace(SHORT, epochs=100, lr=0.01, patience=3, validation_fraction=0.25)
    trained, history = fit(trainer, noise)
    losses = [row.validation_loss for row in history]
    assert None not in losses
    best = losses.index(min(losses))
    assert len(history) == best + 1 + 3 < 100
    held_out = predict(trained, noise.train.divide(0.25, seed=0)[1], CPU)
    assert (held_out.loss, held_out.accuracy) == (losses[best], history[best].validation_accuracy)
    assert len(held_out.labels) == 30
    assert history[0].images == 80, "90 images are left to train on, in whole batches of 16"


def test_under_a_defence_the_weights_are_kept_that_stand_best_on_validation_images(
    noise: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands = [0.1, 0.5, 0.5, 0.4, 0.3, 0.2]  # two epochs stand equally well
    states: list[Tensor] = []
    attacked: list[tuple[int, int | None]] = []

    def robust(network: nn.Sequential, split: Split, monitor: object, hardware: object, images: Any = None) -> float:
        attacked.append((len(split), images))
        if images is None:
            states.append(weights(network))
        return stands[len(states) - 1] if images is None else 0.9

    monkeypatch.setattr("trustml_cli.training.gradient.mean_score", robust)
    trainer = replace(SHORT, epochs=100, lr=0.01, patience=3, validation_fraction=0.25)
    defence = FreeTraining(norm=Norm.linf, epsilon=0.1, monitor_images=7, replays=1)
    history: list[Epoch] = []
    torch.manual_seed(0)
    trained = network(noise)
    trainer.fit(trained, noise, CPU, history.append, defence)
    losses = [row.validation_loss or 0 for row in history]
    best = 1 if losses[1] <= losses[2] else 2
    assert len(history) == best + 1 + 3
    assert torch.equal(weights(trained), states[best])
    assert attacked == [(90, 7), (30, None)] * len(history), "training and all validation images, never test images"
    assert [row.extra["validation_robust_accuracy"] for row in history] == stands[: len(history)]
    assert {row.extra["train_robust_accuracy"] for row in history} == {0.9}


def test_the_robust_accuracy_is_that_of_the_images_after_an_attack(tiny_data: Dataset) -> None:
    torch.manual_seed(0)
    trained, _ = fit(replace(SHORT, epochs=5, lr=0.01), tiny_data)
    little, much = (
        FreeTraining(norm=Norm.linf, epsilon=epsilon, monitor_images=1, replays=1) for epsilon in (0.001, 0.9)
    )
    assert (
        mean_score(trained, tiny_data.test, little.monitor, CPU) == predict(trained, tiny_data.test, CPU).accuracy == 1
    )
    assert mean_score(trained, tiny_data.test, much.monitor, CPU) == 0
    assert mean_score(trained, tiny_data.test, little.monitor, CPU, images=3) == 1


@pytest.mark.parametrize(("cap", "steps"), [(None, 4), (3, 3), (100, 4)])
def test_steps_per_epoch_caps_the_batches_of_an_epoch(cap: int | None, steps: int, tiny_data: Dataset) -> None:
    sizes = [len(x) for x in training_inputs(replace(SHORT, epochs=2, steps_per_epoch=cap), tiny_data)]
    assert sizes == [16] * steps * 2


def training_inputs(trainer: GradientTrainer, data: Dataset) -> list[Tensor]:
    """The batches that a network was shown in training."""
    shown: list[Tensor] = []
    watched = network(data)
    watched.register_forward_pre_hook(lambda self, args: shown.append(args[0]) if self.training else None)
    trainer.fit(watched, data, CPU, lambda epoch: None)
    return shown


def test_each_epoch_goes_once_over_all_images_in_an_order_of_its_own(tiny_data: Dataset) -> None:
    torch.manual_seed(0)
    shown = torch.cat(training_inputs(replace(SHORT, epochs=2), tiny_data))
    all_of_them = [image.numpy().tobytes() for image in tiny_data.train.inputs.float().div(255)]
    first, second = ([image.contiguous().numpy().tobytes() for image in epoch] for epoch in shown.split(64))
    assert sorted(first) == sorted(second) == sorted(all_of_them)
    assert all_of_them != first != second != all_of_them


@pytest.mark.parametrize("changes", [{}, {"flip": True}, {"crop_padding": 2}], ids=str)
def test_images_are_augmented_only_where_it_is_asked_for(changes: dict[str, Any], tiny_data: Dataset) -> None:
    torch.manual_seed(0)
    shown = torch.cat(training_inputs(replace(SHORT, epochs=1, **changes), tiny_data))
    originals = {image.numpy().tobytes() for image in tiny_data.train.inputs.float().div(255)}
    unchanged = [image.contiguous().numpy().tobytes() in originals for image in shown]
    assert len(shown) == 64
    assert all(unchanged) if not changes else 0 < sum(unchanged) < 64


def test_label_smoothing_is_the_mean_with_uniform_labels(tiny_data: Dataset) -> None:
    one_step = replace(SHORT, epochs=1, batch_size=64, label_smoothing=0.2)
    smoothed = fit(one_step, tiny_data)[1][0].train_loss
    with seeded(0):
        before = predict(network(tiny_data), tiny_data.train, CPU)
    log_p = before.logits.log_softmax(1)
    by_hand = -0.8 * log_p[range(64), before.labels].mean() - 0.2 * log_p.mean()
    assert smoothed == pytest.approx(by_hand.item(), rel=1e-5)
    assert abs(smoothed - before.loss) > 1e-3


def test_a_weight_that_is_frozen_does_not_move(tiny_data: Dataset) -> None:
    held = network(tiny_data)
    held.network[1].requires_grad_(False)
    before = copy.deepcopy(held)
    replace(SHORT, weight_decay=0.1).fit(held, tiny_data, CPU, lambda epoch: None)
    assert torch.equal(held.network[1].weight, before.network[1].weight)
    assert not torch.equal(held.network[3].weight, before.network[3].weight)


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_weight_decay_makes_smaller_weights(optimizer: Optimizer, tiny_data: Dataset) -> None:
    free, decayed = (fit(replace(SHORT, optimizer=optimizer, weight_decay=decay), tiny_data)[0] for decay in (0.0, 0.5))
    assert weights(decayed).norm() < 0.9 * weights(free).norm()


@pytest.mark.parametrize("schedule", list(Schedule))
def test_the_learning_rate_goes_as_the_schedule_says(schedule: Schedule, tiny_data: Dataset) -> None:
    steps = 19
    trainer = replace(SHORT, epochs=steps, steps_per_epoch=1, lr=0.5, schedule=schedule)
    rates = [row.lr for row in fit(trainer, tiny_data)[1]]
    if schedule is Schedule.constant:
        assert rates == [0.5] * steps
    elif schedule is Schedule.cosine:
        assert rates == pytest.approx([0.25 * (1 + cos(pi * step / steps)) for step in range(steps)])
    elif schedule is Schedule.triangular:
        peak = 4  # 23 % of 19 steps, whole ones
        assert (rates[0], rates[2], rates[peak]) == pytest.approx((0.1, 0.3, 0.5))
        assert rates[peak:] == pytest.approx([0.5 - 0.465 * step / 15 for step in range(15)])
    else:
        peak = 5  # of the 20 values from the first step to the end, 30 % lie up to here
        assert (rates[0], rates[peak]) == pytest.approx((0.5 / 25, 0.5))
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert 0 < rates[-1] < 0.01


BAD_VALUES: dict[str, list[Any]] = {
    "epochs": [0, -1, 1.5, None],
    "steps_per_epoch": [0, "all"],
    "batch_size": [0, None],
    "optimizer": ["adagrad", None],
    "lr": [0.0, -0.1, inf, nan, "fast"],
    "momentum": [-0.1, 1.0, nan],
    "weight_decay": [-1e-9, inf, nan],
    "schedule": ["linear"],
    "label_smoothing": [-0.1, 1.0, nan],
    "flip": ["sometimes"],
    "crop_padding": [-1, 0.5],
    "patience": [0, -2],
    "validation_fraction": [0.0, 1.0, nan],
    "channels_last": ["perhaps"],
    "log_every": [0, -1, 0.5],
    "log_images": [0, None],
}


@pytest.mark.parametrize(("step", "share"), [(0, 0.2), (23, 1.0), (100, 0.07)])
def test_the_triangle_has_the_published_corners(step: int, share: float) -> None:
    assert triangle(step, 100) == pytest.approx(share)


def test_every_bad_value_is_refused_by_its_key() -> None:
    assert list(BAD_VALUES) == [field.name for field in fields(GradientTrainer)]
    for key, value in [(key, value) for key, values in BAD_VALUES.items() for value in values]:
        with pytest.raises(InputError, match=rf"^trainer\.{key}: "):
            build(OmegaConf.merge(YAML, {key: value}), "trainer")


def test_a_model_without_weights_that_train_is_refused(tiny_data: Dataset) -> None:
    with pytest.raises(InputError, match="no weight that trains"):
        SHORT.fit(network(tiny_data).requires_grad_(False), tiny_data, CPU, lambda epoch: None)


@pytest.mark.parametrize("change", [{"flip": True}, {"crop_padding": 2}])
def test_rows_of_a_table_are_not_augmented(change: dict[str, Any]) -> None:
    rows = InMemory(torch.rand(8, 3), torch.arange(8) % 2)
    table = Dataset(rows, rows, ("no", "yes"), fingerprint="rows", source="made up")
    with pytest.raises(InputError, match="need images"):
        replace(SHORT, **change).fit(nn.Sequential(nn.Linear(3, 2)), table, CPU, lambda epoch: None)
