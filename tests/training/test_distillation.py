"""Distillation against closed forms, and what a student takes from its teacher."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.training.distillation import DistillationStep, TemperedStep, soft_divergence

LOGITS, TAUGHT = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[2 * 3**0.5, 0.0], [2.0, 0.0]])


def losses(step: Any, teacher: nn.Module | None = None) -> tuple[float, Tensor]:
    """The loss of a batch of two examples of class 0 whose logits are `LOGITS`, and its gradient by them."""
    logits = LOGITS.clone().requires_grad_(True)

    def take(closure: Any) -> tuple[Tensor, Tensor]:
        loss, made = closure()
        loss.backward()
        return loss.detach(), made.detach()

    networks = () if teacher is None else (teacher,)
    state = SimpleNamespace(
        network=lambda _: logits,
        networks=networks,
        step=take,
        autocast=nullcontext,
        cross_entropy=functional.cross_entropy,
    )
    loss, made = step(state, torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    assert torch.equal(made, LOGITS)
    assert logits.grad is not None
    return loss.item(), logits.grad


class Teacher(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return TAUGHT


def test_the_divergence_worked_out_by_hand() -> None:
    """softmax([ln 3, 0]) is (3/4, 1/4), and KL to (1/2, 1/2) 3/4·ln(3/2) + 1/4·ln(1/2); the second row has none."""
    teacher = torch.tensor([[4 * torch.log(torch.tensor(3.0)), 0.0], [2.0, 0.0]])
    expected = 16 * (0.75 * torch.log(torch.tensor(1.5)) + 0.25 * torch.log(torch.tensor(0.5))) / 2
    torch.testing.assert_close(soft_divergence(LOGITS, teacher, 4.0), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
def test_the_gradient_is_the_temperature_times_the_difference_of_probabilities(temperature: float) -> None:
    _, gradient = losses(DistillationStep(temperature=temperature, alpha=1.0), Teacher())
    p, q = ((values / temperature).softmax(1) for values in (LOGITS, TAUGHT))
    torch.testing.assert_close(gradient, temperature * (p - q) / 2)


def test_alpha_weighs_the_teacher_and_the_labels() -> None:
    hard = functional.cross_entropy(LOGITS, torch.zeros(2, dtype=torch.int64)).item()
    soft = soft_divergence(LOGITS, TAUGHT, 3.0).item()
    for alpha in (0.0, 0.25, 1.0):
        loss, _ = losses(DistillationStep(temperature=3.0, alpha=alpha), Teacher())
        assert loss == pytest.approx(alpha * soft + (1 - alpha) * hard, rel=1e-6)


def test_a_tempered_step_divides_the_logits() -> None:
    loss, _ = losses(TemperedStep(temperature=4.0))
    assert loss == pytest.approx(functional.cross_entropy(LOGITS / 4, torch.zeros(2, dtype=torch.int64)).item())


@pytest.mark.parametrize(
    ("key", "made"),
    [
        ("temperature", lambda: DistillationStep(temperature=0.0, alpha=1.0)),
        ("temperature", lambda: TemperedStep(temperature=-1.0)),
        ("alpha", lambda: DistillationStep(temperature=1.0, alpha=1.1)),
    ],
)
def test_values_out_of_range_are_refused(key: str, made: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: must be"):
        made()
