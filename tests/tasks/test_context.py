"""What makes a trained network what it is: the key under which it is kept, with a defence among it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice
from tests.helpers import CPU, NO_CACHE
from tests.tasks.parts import MODEL, TRAINER
from trustml_cli.attacks.attack import Norm
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.data.relabelled import Relabelled
from trustml_cli.defences.defence import Defence
from trustml_cli.defences.ensemble import EnsembleTraining
from trustml_cli.defences.free import FreeTraining
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import Hardware
from trustml_cli.tasks.context import Context, Trained
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.many import Member, fit_many
from trustml_cli.training.predict import predict
from trustml_cli.training.spec import TrainingSpec, WrappedSpec, seed_for
from trustml_cli.training.step import CROSS_ENTROPY, TrainingState, TrainingStep
from trustml_cli.training.trainer import Epoch
from trustml_cli.training.wrapper import Wrapper, WrapperEpoch

FREE = FreeTraining(norm=Norm.linf, epsilon=0.1, monitor_images=8, replays=2)


def weights(trained: Trained) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in trained.network.parameters()])


def test_no_defence_is_the_same_as_none_and_every_other_has_a_key_of_its_own(
    context: Context, tiny_data: Dataset
) -> None:
    plain = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER))
    none = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=Defence()))
    assert none.key == plain.key
    assert [row.extra for row in none.history] == [{}] * 4
    others = [FREE, replace(FREE, epsilon=0.2), replace(FREE, replays=4)]
    defended = [context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=each)) for each in others]
    assert len({plain.key, *(each.key for each in defended)}) == 4
    assert not any(torch.equal(weights(plain), weights(each)) for each in defended)
    assert [row.extra["train_robust_accuracy"] is None for row in defended[0].history] == [False] * 2
    again = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=FREE))
    assert (again.key, again.history) == (defended[0].key, defended[0].history)


def test_what_was_trained_with_another_number_of_threads_or_on_another_device_is_not_taken_over(
    context: Context, tiny_data: Dataset
) -> None:
    before = torch.get_num_threads()
    keys = []
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            keys.append(context.train_or_load(context.spec(tiny_data, MODEL, TRAINER)).key)
    finally:
        torch.set_num_threads(before)
    assert keys[0] == keys[2] != keys[1]
    assert len(list(context.store.root.glob("*/model.json"))) == 2
    devices = [replace(context.hardware, device=torch.device(name)) for name in ("cuda", "cuda:1", "mps", "cpu")]
    assert len({device.arithmetic for device in devices}) == 3, "GPUs of one machine count as the same"


def test_how_many_images_are_looked_at_does_not_change_what_is_trained(context: Context, tiny_data: Dataset) -> None:
    few, all_ = (
        context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=replace(FREE, monitor_images=images)))
        for images in (1, 32)
    )
    assert torch.equal(weights(few), weights(all_))


def test_static_networks_are_trained_from_other_seeds_and_found_again(context: Context, tiny_data: Dataset) -> None:
    ensemble = EnsembleTraining(norm=Norm.linf, epsilon=0.1, monitor_images=8, static=2, clean_share=0.5)
    defended = context.train_or_load(context.spec(tiny_data, MODEL, TRAINER, defence=ensemble))
    stages = [row["network"] for row in context.record.epochs]
    assert stages == ["static 1"] * 4 + ["static 2"] * 4 + ["defended"] * 4
    assert context.record.facts["model_key"] == defended.key
    static = context.train_or_load(replace(context, seed=1).spec(tiny_data, MODEL, TRAINER))
    assert len(list(context.store.root.glob("*/model.json"))) == 3, "the first of them was there already"
    assert not torch.equal(weights(static), weights(defended))


def test_a_defence_refuses_what_it_cannot_train(context: Context, tiny_data: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "own.pt"
    file.touch()
    with pytest.raises(InputError, match=r"^defence: .*model\.checkpoint"):
        context.train_or_load(context.spec(tiny_data, replace(MODEL, checkpoint=file), TRAINER, defence=FREE))
    with pytest.raises(InputError, match=r"^defence: .*trainer=default"):
        context.spec(tiny_data, MODEL, build(choice("trainer", "numpy"), "trainer"), defence=FREE)
    table = build(choice("dataset", "census"), "dataset").load(NO_CACHE)
    with pytest.raises(InputError, match=r"^defence: needs images"):
        context.train_or_load(context.spec(table, MODEL, TRAINER, defence=FREE))


def test_training_goes_on_from_a_checkpoint_or_a_stored_network(
    context: Context, tiny_data: Dataset, tmp_path: Path
) -> None:
    first = context.spec(tiny_data, MODEL, TRAINER)
    trained = context.train_or_load(first)
    file = context.store.root / trained.key / "model.safetensors"
    slow = replace(TRAINER, epochs=1, lr=1e-5)
    model = replace(MODEL, checkpoint=file, train=True)
    from_file = context.train_or_load(context.spec(tiny_data, model, slow))
    assert isinstance(first, TrainingSpec)
    from_store = context.train_or_load(replace(first, trainer=slow, init_from=first))
    from_nothing = context.train_or_load(replace(first, trainer=slow))
    for tuned in (from_file, from_store):
        assert not torch.equal(weights(tuned), weights(trained))
        assert torch.allclose(weights(tuned), weights(trained), atol=1e-3)
        assert tuned.history[0].train_loss < from_nothing.history[0].train_loss / 2
    assert torch.equal(weights(from_file), weights(from_store))
    assert len({each.key for each in (trained, from_file, from_store, from_nothing)}) == 4
    as_it_is = context.train_or_load(context.spec(tiny_data, replace(model, train=False), slow))
    assert torch.equal(weights(as_it_is), weights(trained))
    hardened = context.train_or_load(context.spec(tiny_data, model, slow, defence=FREE))
    assert torch.allclose(weights(hardened), weights(trained), atol=1e-3)
    with pytest.raises(InputError, match=r"^model\.train: .*trainer=default"):
        context.train_or_load(context.spec(tiny_data, model, build(choice("trainer", "numpy"), "trainer")))


def test_a_network_that_looks_at_images_first_keeps_what_it_saw_when_it_is_tuned(
    context: Context, tiny_data: Dataset
) -> None:
    model = build(choice("model", "fast_cnn", width=8), "model")
    first = TrainingSpec(data=tiny_data, model=model, trainer=replace(TRAINER, epochs=1), seed=0)
    others = tiny_data.derive("every other one", train=tiny_data.train.subset(torch.arange(0, 64, 3)))
    before, after = (context.train_or_load(each) for each in (first, replace(first, data=others, init_from=first)))
    fixed = {name for name, _ in before.network.named_buffers() if "running" not in name and "batches" not in name}
    fixed |= {
        name for name, weight in model.build(input_spec(tiny_data)).named_parameters() if not weight.requires_grad
    }
    assert len(fixed) > 2
    states = before.network.state_dict(), after.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in fixed)


@dataclass(frozen=True, kw_only=True)
class Copycat(TrainingStep):
    """Learns the answers of a teacher."""

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (teacher,) = state.networks
        return CROSS_ENTROPY(state, x, teacher(x).argmax(1))


@dataclass(frozen=True, kw_only=True)
class Picky(Copycat):
    def check(self, network: nn.Module) -> None:
        if sum(isinstance(layer, nn.Linear) for layer in network.modules()) > 1:
            raise ValueError("needs a network without a second linear layer; take model=logistic")


def test_a_teacher_is_a_network_that_is_needed_and_part_of_the_key(context: Context, tiny_data: Dataset) -> None:
    turned = tiny_data.derive("turned", train=Relabelled(tiny_data.train, 1 - tiny_data.train.labels))
    teacher = TrainingSpec(data=turned, model=MODEL, trainer=TRAINER, seed=5)
    student = TrainingSpec(
        data=tiny_data,
        model=MODEL,
        trainer=replace(TRAINER, epochs=6),
        seed=0,
        step=Copycat(),
        needs={"teacher": teacher},
    )
    trained = context.train_or_load(student)
    assert [row["network"] for row in context.record.epochs] == ["teacher"] * 4 + ["student"] * 6
    assert predict(trained.network, tiny_data.test, CPU).accuracy == 0, "it says the opposite, as its teacher does"
    picky = replace(student, step=Picky())
    with pytest.raises(InputError, match=r"^defence: needs a network without a second linear layer"):
        context.train_or_load(picky)
    others = [replace(student, needs={"teacher": replace(teacher, seed=6)}), replace(student, seed=1)]
    assert len({trained.key, *(context.train_or_load(each).key for each in others)}) == 3


@dataclass(frozen=True, kw_only=True)
class Scale(Wrapper):
    """One number that the logits are multiplied by, behind the network."""

    place: ClassVar = "scale behind"
    steps: int

    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
        return nn.Sequential(network, Factor())

    def part(self, wrapped: nn.Sequential) -> nn.Module:
        return wrapped[1]

    @property
    def learns_from(self) -> int:
        return 32

    def learn(self, part: nn.Module, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[WrapperEpoch]:
        optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
        for _ in range(self.steps):
            logits = part(network(x))
            loss = nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield WrapperEpoch(0.1, loss.item(), (logits.argmax(1) == y).double().mean().item())


class Factor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_a_wrapper_is_trained_behind_a_network_and_stored_by_itself(context: Context, tiny_data: Dataset) -> None:
    base = context.spec(tiny_data, MODEL, TRAINER)
    spec = WrappedSpec(base=base, wrapper=Scale(steps=3), data=tiny_data, seed=0)
    plain, wrapped = context.train_or_load(base), context.train_or_load(spec)
    assert context.record.epochs[-1]["network"] == "scale behind classifier"
    factor = wrapped.network[1].factor
    assert factor > 1.0, "its answers are right, so confidence pays"
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(wrapped.network(x), factor * plain.network(x))
    again = context.train_or_load(replace(spec, base=base))
    assert (again.key, again.network[1].factor) == (wrapped.key, factor)
    twice = context.train_or_load(replace(spec, base=spec))
    assert len({plain.key, wrapped.key, twice.key}) == 3
    assert twice.network[1].factor != factor


def test_every_purpose_has_seeds_of_its_own_and_static_networks_those_they_always_had() -> None:
    assert [seed_for(3, "static", number) for number in (1, 2)] == [4, 5]
    seeds = [seed_for(seed, name, n) for seed in (0, 1) for name in ("teacher", "shadow") for n in range(1, 9)]
    assert len(set(seeds)) == 32
    assert seeds == [seed_for(seed, name, n) for seed in (0, 1) for name in ("teacher", "shadow") for n in range(1, 9)]
    assert min(seeds) > 100


def test_many_networks_are_trained_at_once_and_stored_one_by_one(
    context: Context, tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(trainer: GradientTrainer, members: list[Member], hardware: Hardware) -> list[list[Epoch]]:
        calls.append(len(members))
        return fit_many(trainer, members, hardware)

    monkeypatch.setattr("trustml_cli.tasks.context.fit_many", counted)
    plain = TrainingSpec(data=tiny_data, model=MODEL, trainer=TRAINER, seed=0)
    specs = [replace(plain, seed=plain.seed_for("shadow", number)) for number in (1, 2, 3)]
    first = context.train_or_load_many(specs, "shadow")
    assert [row["network"] for row in context.record.epochs] == ["shadow 1"] * 4 + ["shadow 2"] * 4 + ["shadow 3"] * 4
    keys = {each.key for each in first}
    assert {path.name for path in context.store.root.iterdir() if path.is_dir()} == keys
    assert len(keys) == 3
    again = context.train_or_load_many(specs[::-1], "shadow")
    assert calls == [3]
    for one, other in zip(first, again[::-1], strict=True):
        assert (one.key, one.history) == (other.key, other.history)
        assert torch.equal(weights(one), weights(other))
    shutil.rmtree(context.store.root / first[1].key)
    renewed = context.train_or_load_many(specs, "shadow")
    assert calls == [3, 3]
    assert all(torch.equal(weights(one), weights(other)) for one, other in zip(first, renewed, strict=True))
    alone = context.train_or_load(specs[0])
    assert alone.key not in keys, "it differs by rounding"
    assert torch.allclose(weights(alone), weights(first[0]), atol=1e-4)
    assert not torch.allclose(weights(alone), weights(first[1]), atol=1e-2)


def test_networks_that_cannot_be_trained_at_once_are_trained_one_after_the_other(
    context: Context, tiny_data: Dataset
) -> None:
    plain = TrainingSpec(data=tiny_data, model=MODEL, trainer=TRAINER, seed=0)
    dropout = replace(plain, model=replace(MODEL, dropout=0.5))
    for specs in (
        [dropout, replace(dropout, seed=1)],
        [plain, replace(plain, trainer=replace(TRAINER, lr=0.01))],
        [plain, replace(plain, step=FREE)],
        [plain],
    ):
        trained = context.train_or_load_many(specs, "teacher")
        assert [each.key for each in trained] == [context.train_or_load(spec).key for spec in specs]
