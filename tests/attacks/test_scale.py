"""Multiplying the logits by a number changes no image of an attack that goes by directions and orders alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.attacks.test_attacks import EPSILONS, FEW, IN_NORMS, made
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import lengths, normalised, onto_ball, unit_step
from trustml_cli.hardware import own_randomness

# they weigh logits against pixels, stop at a confidence, or cap a lead
BY_SCALE = ("cw", "confident", "universal_gradient")


SCALE_FREE = [case for case in IN_NORMS if case[0] not in BY_SCALE]


class Scaled(nn.Module):
    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.model(x)
        return logits


@pytest.fixture(scope="module")
def pair() -> nn.Module:
    """Two classes: with more, the cross-entropy weighs the wrong ones by their scale."""
    torch.manual_seed(4)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, 2))
    return layers.eval().requires_grad_(False)


@pytest.mark.parametrize(("name", "norm"), SCALE_FREE, ids=lambda value: getattr(value, "value", value))
def test_the_scale_of_the_logits_changes_no_image(name: str, norm: Norm, pair: nn.Module) -> None:
    """By powers of two, which float32 multiplies by exactly: 2⁻⁴⁰ is about 10⁻¹², 2¹⁰ about 10³."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).eval().requires_grad_(False) if name == "linear" else pair
    x = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    images = []
    for power in (0, -40, 10):
        victim = Scaled(model, 2.0**power).eval()
        attack = made(name, norm, FEW, victim)
        with own_randomness(3):
            images.append(attack(victim, x, model(x).argmax(1), EPSILONS[norm]))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], x)


@given(power=st.integers(-140, 100), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_lengths_and_directions_of_rows_of_any_size(power: int, seed: int) -> None:
    rows = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(seed))
    rows[0] = 0
    scaled = rows * 2.0**power
    for order in (1.0, 2.0, torch.inf):
        by_hand = torch.linalg.vector_norm(scaled.double().flatten(1), order, dim=1)
        torch.testing.assert_close(
            lengths(scaled, order).double(), by_hand, rtol=1e-5 if power > -120 else 0.02, atol=0
        )
        unit = normalised(scaled, order)
        assert not unit[0].any()
        torch.testing.assert_close(lengths(unit[1:], order), torch.ones(3))
        torch.testing.assert_close(unit.sign(), scaled.sign())
    assert torch.equal(unit_step(scaled, Norm.l2), normalised(scaled))
    torch.testing.assert_close(lengths(onto_ball(scaled, 0.5, Norm.l2)), lengths(scaled).clamp(max=0.5))
