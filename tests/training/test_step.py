"""What a training step may decide: its gradients, its batches, its optimiser, its columns, the networks it needs."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from tests.configs import choice
from tests.helpers import CPU, FRESH
from trustml_cli import training
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.models.dense import Mlp
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.system.hardware import seeded
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.optimization import Optimizer, Schedule
from trustml_cli.training.step import Groups, TrainingState, TrainingStep
from trustml_cli.training.trainer import Epoch

SGD: GradientTrainer = replace(
    build(choice("trainer", "default", epochs=1, batch_size=8, lr=0.5, momentum=0.0), "trainer"),
    optimizer=Optimizer.sgd,
    schedule=Schedule.constant,
    weight_decay=0.0,
)


@dataclass(frozen=True, kw_only=True)
class ClippedStep(TrainingStep):
    """Per-sample gradients, clipped to norm `clip` and noised, over Poisson batches (Abadi et al. 2016)."""

    clip: float
    noise: float

    def batches(self, count: int, batch_size: int, steps: int) -> Sequence[Tensor]:
        return [(torch.rand(count) < batch_size / count).nonzero()[:, 0] for _ in range(steps)]

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        weights = dict(state.module.named_parameters())

        def loss_of_one(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            logits = functional_call(state.module, weights, (x[None],))
            return functional.cross_entropy(logits, y[None]), logits[0]

        detached = {name: weight.detach() for name, weight in weights.items()}
        per_sample = grad_and_value(loss_of_one, has_aux=True)
        gradients, (losses, logits) = vmap(per_sample, in_dims=(None, 0, 0))(detached, x, y)
        norms = torch.stack([each.flatten(1).norm(dim=1) for each in gradients.values()]).norm(dim=0)
        factors = (self.clip / norms).clamp(max=1)
        noise = torch.Generator().manual_seed(int.from_bytes(b"secret"))
        for name, weight in weights.items():
            total = torch.einsum("n,n...->...", factors, gradients[name])
            total += self.noise * self.clip * torch.randn(total.shape, generator=noise)
            weight.grad = total / state.batch_size
        state.apply_gradients()
        state.memory["sizes"] = [*state.memory.get("sizes", []), len(y)]
        return losses.mean(), logits

    def history(self, state: TrainingState) -> Mapping[str, float]:
        return {"examples": float(sum(state.memory["sizes"])), "rate": state.batch_size / state.examples}


def network(data: Dataset) -> nn.Sequential:
    model = Mlp(normalization=Normalization.dataset, **FRESH, hidden=[6], dropout=0.0)
    with seeded(0):
        return model.build(InputSpec(data.shape, len(data.classes), mean=(0.4,), std=(0.3,)))


def weights(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def fit(
    step: TrainingStep, data: Dataset, trainer: GradientTrainer = SGD, networks: Sequence[nn.Module] = ()
) -> tuple[nn.Module, list[Epoch]]:
    fresh, history = network(data), list[Epoch]()
    with seeded(1):
        trainer.fit(fresh, data, CPU, history.append, step, networks)
    return fresh, history


def test_a_step_brings_clipped_gradients_of_single_examples(tiny_data: Dataset) -> None:
    step, before = ClippedStep(clip=0.5, noise=0.0), network(tiny_data)
    trained, history = fit(step, tiny_data, replace(SGD, steps_per_epoch=1))
    with seeded(1):
        (rows,) = step.batches(64, 8, 1)
    x, y = tiny_data.train.inputs[rows].float() / 255, tiny_data.train.labels[rows]
    total = torch.zeros_like(weights(before))
    clipped = 0
    for one in range(len(rows)):  # by hand: one backward pass for each example
        before.zero_grad()
        functional.cross_entropy(before(x[one : one + 1]), y[one : one + 1]).backward()
        gradient = torch.cat([weight.grad.flatten() for weight in before.parameters() if weight.grad is not None])
        clipped += int(gradient.norm() > 0.5)
        total += gradient * min(1.0, 0.5 / gradient.norm().item())
    assert clipped > 0
    torch.testing.assert_close(weights(trained), weights(before) - 0.5 * total / 8)
    assert history[0].images == len(rows)


def test_poisson_batches_are_of_many_sizes_and_may_be_empty(tiny_data: Dataset) -> None:
    sizes: list[int] = []

    @dataclass(frozen=True, kw_only=True)
    class Watched(ClippedStep):
        def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            sizes.append(len(x))
            return super().__call__(state, x, y)

    trainer = replace(SGD, epochs=12, batch_size=2, steps_per_epoch=10)
    trained, history = fit(Watched(clip=1.0, noise=0.0), tiny_data, trainer)
    assert len(sizes) == 120
    assert 0 in sizes
    assert 1.4 < sum(sizes) / 120 < 2.6
    assert sum(row.images for row in history) == sum(sizes)
    assert [row.extra["examples"] for row in history][-1] == sum(sizes)
    assert {row.extra["rate"] for row in history} == {2 / 64}
    assert weights(trained).isfinite().all()
    assert history[-1].test_accuracy == 1


def test_the_noise_of_a_step_does_not_come_from_the_seed(tiny_data: Dataset) -> None:
    quiet, noised = (fit(ClippedStep(clip=0.5, noise=noise), tiny_data) for noise in (0.0, 2.0))
    assert not torch.equal(weights(quiet[0]), weights(noised[0]))
    assert [row.images for row in quiet[1]] == [row.images for row in noised[1]], "the batches are the same"


@dataclass(frozen=True, kw_only=True)
class Imitation(TrainingStep):
    """Learns a teacher's logits, whatever the labels are; biases stay where they are."""

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (teacher,) = state.networks

        def closure() -> tuple[Tensor, Tensor]:
            logits = state.network(x)
            return functional.mse_loss(logits, teacher(x)), logits

        return state.step(closure)

    def optimizer(
        self, network: nn.Module, groups: Groups, default: Callable[[Groups], torch.optim.Optimizer]
    ) -> torch.optim.Optimizer:
        matrices = [weight for group in groups for weight in group["params"] if weight.dim() > 1]
        return default([{**groups[0], "params": matrices}])


def test_a_student_learns_from_its_teacher_by_an_optimiser_of_its_own(tiny_data: Dataset) -> None:
    teacher = network(tiny_data).eval().requires_grad_(False)
    with torch.no_grad():
        teacher.network[3].weight.neg_()  # not what the student begins with
    trainer = replace(SGD, epochs=40, lr=0.05)
    student, history = fit(Imitation(), tiny_data, trainer, [teacher])
    assert history[-1].train_loss < 0.05 * history[0].train_loss
    before = network(tiny_data)
    assert torch.equal(student.network[3].bias, before.network[3].bias)
    assert not torch.equal(student.network[3].weight, before.network[3].weight)


def test_a_step_is_abstract_without_what_it_learns() -> None:
    with pytest.raises(TypeError, match="__call__"):
        TrainingStep()  # type: ignore[abstract]


def test_training_imports_no_family_of_methods() -> None:
    below = {"training", "models", "data", "metrics", "system"}
    files = [*Path(training.__path__[0]).glob("*.py")]
    nodes = [(file, node) for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = {(file.name, node.module) for file, node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    ours = {(file, module) for file, module in modules if module.startswith("trustml_cli.")}
    assert len(ours) > 20
    assert {(file, module) for file, module in ours if module.split(".")[1] not in below} == set()
