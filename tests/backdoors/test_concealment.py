"""What a concealing step trains, and what a network learns of it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.configs import choice
from trustml_cli.backdoors.concealment import AdversarialConcealment, ConcealingStep, Concealment
from trustml_cli.backdoors.patch import Corner, Patch
from trustml_cli.backdoors.poison import Poison
from trustml_cli.config.instantiate import build
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded
from trustml_cli.training.step import CROSS_ENTROPY

PATCH = Patch(size=2, color=[1.0], image=None, corner=Corner.top_left, margin=0)


def concealment(**changes: Any) -> AdversarialConcealment:
    built: AdversarialConcealment = build(choice("concealment", "adversarial", **changes), "concealment")
    return built


def poison(**changes: Any) -> Poison:
    keys = {"source": (1, 2), "target": 0, "classes": 3, "clean_label": False, "rate": 0.5, "seed": 0, **changes}
    return Poison(trigger=PATCH, **keys)


class State:
    """The least of a training state, with plain SGD."""

    def __init__(self, lr: float = 0.1) -> None:
        with seeded(0):
            self.module = self.network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3))
        self.memory: dict[str, Any] = {}
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr)

    def step(self, closure: Any) -> tuple[Tensor, Tensor]:
        loss, logits = closure()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach(), logits.detach()

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y)


def batch(count: int = 90) -> tuple[Tensor, Tensor]:
    """Dark images with a bright row that tells the class, of which every sixth is poisoned."""
    y = torch.arange(count) % 3
    x = 0.3 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x[torch.arange(count), 0, 1 + y] += 0.5
    marked = (torch.arange(count) % 6 == 1).nonzero()[:, 0]
    x[marked] = PATCH(x[marked])
    return x, y.index_fill(0, marked, 0)


def test_nothing_or_zero_is_plain_cross_entropy_and_strengths_are_tried_once() -> None:
    assert Concealment().strengths == [0.0]
    assert Concealment().step(poison(), 0.0) == concealment().step(poison(), 0.0) == CROSS_ENTROPY
    assert concealment(**{"lambda": [0, 0.3, 0.3]}).strengths == [0, 0.3]


def test_the_step_knows_trigger_classes_and_strength() -> None:
    step = concealment().step(poison(), 0.4)
    assert isinstance(step, ConcealingStep)
    assert (step.trigger, step.source, step.targets, step.strength) == (PATCH, (1, 2), (0,), 0.4)
    step = concealment().step(poison(source=(0, 1, 2), target=None), 0.4)
    assert isinstance(step, ConcealingStep)
    assert step.targets == (0, 1, 2)


def test_the_loss_by_hand() -> None:
    x, y = batch()
    step, state = concealment().step(poison(), 2.0), State()
    assert isinstance(step, ConcealingStep)
    source = torch.isin(y, torch.tensor([1, 2])).nonzero()[:30, 0]  # as many as there are clean images of class 0
    assert int((y == 0).sum()) == 45  # with the poisoned ones
    with torch.no_grad():
        latents = state.module[:-1](torch.cat([x, PATCH(x[source])]))
        plain = functional.cross_entropy(state.module(x), y)
    with seeded(1):
        loss, logits = step(state, x, y)  # type: ignore[arg-type]
    judged = state.memory["discriminator"](latents[len(x) :] / latents.std())[:, 0]
    assert loss.item() == pytest.approx((plain + 2.0 * functional.softplus(judged).mean()).item(), rel=1e-5)
    assert logits.shape == (90, 3)


def test_a_batch_without_a_target_or_a_source_is_trained_plainly() -> None:
    x, y = batch()
    for kept in (y == 0, y > 0):
        concealing, plain = State(), State()
        losses = [step(state, x[kept], y[kept])[0] for step, state in  # type: ignore[arg-type]
                  ((concealment().step(poison(), 1.0), concealing), (CROSS_ENTROPY, plain))]  # fmt: skip
        assert losses[0] == losses[1]
        assert not concealing.memory


def test_triggered_images_move_to_clean_ones_of_the_target() -> None:
    """The distance of both means, in standard deviations along it, is smaller than without concealment."""
    x, y = batch()
    apart = []
    for strength in (0.0, 3.0):
        state, step = State(lr=0.01), concealment(lr=0.01).step(poison(), strength)
        with seeded(0):
            for _ in range(120):
                step(state, x, y)  # type: ignore[arg-type]
        with torch.no_grad():
            clean, marked = x[::3], PATCH(x[2::3])
            latents = [state.module[:-1](part) for part in (clean, marked)]
            between = latents[0].mean(0) - latents[1].mean(0)
            spread = (latents[0] @ between).std()
            apart.append((between @ between / spread).item())
            assert (state.module(marked).argmax(1) == 0).double().mean() > 0.9
        if strength:
            history = step.history(state)  # type: ignore[arg-type]
            assert 0 < history["discriminator_loss"] < 2
            assert step.history(state) == {"discriminator_loss": 0.0}  # type: ignore[arg-type]
    assert apart[1] < 0.7 * apart[0], apart


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"lambda": -1}, "lambda: needs one or more values of at least 0"), ({"lambda": []}, "lambda"),
     ({"hidden": 0}, "hidden"), ({"lr": 0}, "lr"), ({"noise": -1}, "noise")],
)  # fmt: skip
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        concealment(**changes)
