"""The confident attack: it stops where it is told to, and its constraints hold."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.confident import Confident


def confident(**changes: Any) -> Confident:
    settings = {"target": None, "confidence": 0.9, "steps": 200, "step_size": 0.01} | changes
    return Confident(**{"norm": Norm.linf, "nothing_erased": False, "binary": False, **settings})


class Linear(nn.Module):
    """Two classes of 1×1×2 images; logits (0, 10a − 20b)."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ torch.tensor([10.0, -20.0])
        return torch.stack([torch.zeros_like(score), score], 1)


X, Y = torch.tensor([[[[0.5, 0.1]]]]), torch.tensor([1])  # a score of 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # away from class 1: a falls, b rises; each step of 0.01 takes 0.3 off; log 9 ≈ 2.197 below zero is 90 % sure
        ({}, [0.5 - 0.18, 0.1 + 0.18]),
        ({"confidence": 0.5}, [0.5 - 0.10, 0.1 + 0.10]),
        ({"nothing_erased": True}, [0.5, 0.1 + 0.26]),  # 0.2 a step, from b alone
        ({"steps": 5}, [0.45, 0.15]),
        ({"target": 1}, [0.5, 0.1]),  # there already: 95 %
        ({"target": 1, "confidence": 0.99}, [0.5 + 0.06, 0.1 - 0.06]),  # log 99 ≈ 4.595
    ],
)
def test_it_stops_as_soon_as_the_model_is_sure(changes: dict[str, Any], expected: list[float]) -> None:
    x_adv = confident(**changes)(Linear(), X, Y, 1.0)
    torch.testing.assert_close(x_adv.flatten(), torch.tensor(expected), atol=0.0101, rtol=0)


def test_the_images_arrive_and_nothing_is_erased(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    for target in (None, 1):
        free = confident(target=target, confidence=0.6)(model, x, y, 1.0)
        adding = confident(target=target, confidence=0.6, nothing_erased=True)(model, x, y, 1.0)
        assert (adding >= x).all()
        assert (free < x).any()
        likelihood = model(free).softmax(1)
        reached = likelihood.scatter(1, y[:, None], 0.0).amax(1) if target is None else likelihood[:, target]
        assert (reached >= 0.6).double().mean() > 0.9


def test_a_binary_perturbation_has_two_values_and_fools(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    x = 0.6 * x
    y = model(x).argmax(1)
    x_adv = confident(binary=True, confidence=0.5, steps=300)(model, x, y, 0.3)
    change = x_adv - x
    two_values = torch.isclose(change, torch.tensor(0.3), atol=1e-6) | (change == 0)
    assert two_values.all()
    assert x_adv.max() <= 1
    fell = model(x_adv).argmax(1) != y
    assert fell.double().mean() > 0.5
    share = (change != 0).flatten(1).double().mean(1)
    assert share[fell].mean() < 0.5  # it does not just paint everything


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confidence": 1.0}, "confidence: must be above 0 and below 1"),
        ({"steps": 0}, "steps: must be at least 1"),
        ({"step_size": 0.0}, "step_size: must be above 0 and at most 1"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        confident(**changes)
