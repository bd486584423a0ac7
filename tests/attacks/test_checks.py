"""The checks find what they are for: a small trained model that is honest, saturated, randomised, or badly attacked."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trustml_cli.attacks.attack import Attack, Norm, Sees
from trustml_cli.attacks.bim import BIM
from trustml_cli.attacks.checks import (
    MASKING,
    RANDOMISED,
    WEAK,
    Bench,
    Finding,
    check_gradients,
    check_monotone,
    check_steady,
    sign_test,
    telling_epsilon,
    verdict,
    with_more,
)
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.losses import Loss, lead
from trustml_cli.attacks.measure import Attacked, Curve, Predictions, attack_curve
from trustml_cli.attacks.noise import Noise
from trustml_cli.attacks.pgd import PGD
from trustml_cli.hardware import own_randomness


@dataclass(frozen=True, kw_only=True)
class Corners(Attack):
    """Pushes one value after the other to the side where the margin is smaller: a black box."""

    norms: ClassVar = (Norm.linf,)
    sees: ClassVar = Sees.answers

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        x_adv = x.flatten(1).clone()
        for place in range(x_adv.shape[1]):
            up, down = x_adv.clone(), x_adv.clone()
            up[:, place], down[:, place] = x_adv[:, place] + epsilon, x_adv[:, place] - epsilon
            higher = lead(model(up.view_as(x)), y, None) > lead(model(down.view_as(x)), y, None)
            x_adv = torch.where(higher[:, None], up, down).clamp(0, 1)
        return x_adv.view_as(x)


def pgd(**changes: Any) -> PGD:
    settings = {
        "loss": Loss.ce,
        "steps": 20,
        "step_size": None,
        "reach": 2.5,
        "random_start": True,
        "restarts": 1,
    } | changes
    return PGD(norm=Norm.linf, target=None, **settings)


RIVALS: dict[str, Attack] = {
    "one_step": FGSM(norm=Norm.l2, target=None),  # the norm becomes that of the attack
    "iterative": pgd(),
    "black_box": Corners(norm=Norm.linf, target=None),
    "control": Noise(norm=Norm.linf, target=None),
}


class Scaled(nn.Module):
    """Logits times a factor: the same answers, with any confidence."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.factor


class Stepped(nn.Module):
    """Logits in whole numbers: the same answers but for ties, and no slope."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return (8 * logits).round()


class Jittered(nn.Module):
    """A network that is shown each image with noise of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.3 * torch.randn_like(x))
        return logits


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Two classes of 1×4×4 images, told apart by a small network, and 200 images."""
    with own_randomness(0):
        y = torch.arange(200) % 2
        centre = torch.where(torch.rand(16) < 0.5, 0.35, 0.65)
        x = torch.where(y[:, None] == 1, centre, 1 - centre) + 0.15 * torch.randn(200, 16)
        x = x.clamp(0, 1).view(-1, 1, 4, 4)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(150):
            loss = cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return network.eval().requires_grad_(False), x, y


def findings(model: nn.Module, x: Tensor, y: Tensor, attack: Attack) -> tuple[dict[str, Finding], str]:
    """Every check by name, and the verdict."""
    with own_randomness(0):
        curve = attack_curve(model, attack, [(x, y)], [0.05, 0.15], keep=0)
        checked = [check_gradients(curve), check_monotone(curve), check_steady(model, x)]
        bench = Bench(model, [(x[:120], y[:120]), (x[120:], y[120:])], 0.15, attack.target)
        compared = bench.compare(attack, RIVALS)
    assert len(compared) == 6
    return {finding.name: finding for finding in (*checked, *compared)}, verdict(checked, compared)


def failed(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.passed is False}


def test_an_honest_model_under_a_good_attack_is_trustworthy(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    found, judged = findings(*trained, pgd())
    assert all(finding.passed for finding in found.values())
    assert judged == "trustworthy"


def test_saturated_logits_mask_nothing(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = trained
    found, judged = findings(Scaled(model, 1000.0).eval(), x, y, pgd())
    assert all(finding.passed for finding in found.values())
    assert judged == "trustworthy"


def test_whole_numbers_are_found_to_mask_the_gradient(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = trained
    found, judged = findings(Stepped(model).eval(), x, y, pgd())
    assert {"gradients are not zero", "a white box is not weaker than a black box"} <= failed(found)
    assert "an unlimited budget leaves nothing standing" in failed(found)
    assert judged.startswith(f"not trustworthy: {MASKING} (failed: ")


def test_a_randomised_model_is_found(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = trained
    found, judged = findings(Jittered(model), x, y, pgd())
    assert "the model is in eval mode and deterministic" in failed(found)
    assert RANDOMISED in judged


def test_a_model_in_training_mode_is_found(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, _ = trained
    dropping = nn.Sequential(nn.Dropout(0.5), model)
    assert check_steady(dropping.eval(), x).passed
    finding = check_steady(dropping.train(), x)
    model.eval()
    assert finding.passed is False
    assert finding.figure.startswith("7 layers in training mode")  # of the dropout, the five of the model, and both


def test_an_attack_of_too_few_steps_is_found_too_weak(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    timid = BIM(norm=Norm.linf, target=None, steps=2, step_size=0.03, reach=1.0)
    found, judged = findings(*trained, timid)
    assert "more steps or restarts change nothing" in failed(found)
    assert WEAK in judged
    assert MASKING in judged  # one whole step does more


def test_noise_is_no_attack(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    found, _ = findings(*trained, Noise(norm=Norm.linf, target=None))
    assert failed(found) == {"a common iterative attack is not stronger"}
    assert found["the attack is stronger than random noise"].passed is None


def test_an_attack_that_does_nothing_is_found(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Idle(Attack):
        norms: ClassVar = (Norm.linf,)
        steps: int = 1

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
            return x

    found, _ = findings(*trained, Idle(norm=Norm.linf, target=None))
    assert {"the attack is stronger than random noise", "an unlimited budget leaves nothing standing"} <= failed(found)


def test_without_rivals_in_its_norm_nothing_is_compared(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = trained
    found = Bench(model, [(x, y)], 2.0, None).compare(Noise(norm=Norm.l0, target=None), {"iterative": pgd()})
    assert [finding.passed for finding in found] == [None] * 6
    assert verdict([check_steady(model, x)], found) == "not judged: held against no other attack"


def curve_of(right: list[int], epsilons: list[float]) -> Curve:
    """Four images, of which so many are right at each epsilon; before the attack, all."""
    labels = torch.zeros(4, dtype=torch.long)
    clean = Predictions(labels, torch.ones(4))
    curve = Curve(labels, clean, {}, torch.zeros(4, dtype=torch.bool), torch.zeros(4, 1))
    for epsilon, count in zip(epsilons, right, strict=True):
        answers = Predictions((torch.arange(4) >= count).long(), torch.ones(4))
        nothing = torch.zeros(4, dtype=torch.bool)
        curve.attacked.append(Attacked(epsilon, answers, {}, {}, 0.0, 0.0, 0.0, nothing, 0.0, torch.zeros(4, 1)))
    return curve


@pytest.mark.parametrize(("right", "passed"), [([4, 3, 1], True), ([4, 1, 2], False), ([4, 4, 4], True), ([4], None)])
def test_accuracy_that_rises_with_epsilon_is_noticed(right: list[int], passed: bool | None) -> None:
    assert check_monotone(curve_of(right, [0.1 * number for number in range(len(right))])).passed is passed


@pytest.mark.parametrize(
    ("right", "epsilon"),
    [([4, 4, 3, 1, 0], 0.3), ([4, 4, 4, 4, 4], 0.4), ([4, 0, 0, 0, 0], 0.4), ([4, 2, 0, 0, 0], 0.1)],
)
def test_attacks_are_compared_where_accuracy_is_half_or_else_at_the_largest_epsilon(
    right: list[int], epsilon: float
) -> None:
    assert telling_epsilon(curve_of(right, [0.0, 0.1, 0.2, 0.3, 0.4])) == epsilon
    assert telling_epsilon(curve_of([4], [0.0])) is None


def test_sign_tests_worked_out_by_hand() -> None:
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(2, 1) == 0.5
    assert sign_test(0, 0) == 1


def test_more_effort_is_twice_the_steps_and_another_restart() -> None:
    assert with_more(pgd()) == pgd(steps=40, restarts=2)
    assert with_more(pgd(random_start=False)) == pgd(steps=40, random_start=False)
    assert with_more(FGSM(norm=Norm.linf, target=None)) is None


def test_a_verdict_names_each_cause_once_with_all_that_speaks_for_it() -> None:
    found = [
        Finding("a", False, "1", MASKING), Finding("b", True, "2", WEAK),
        Finding("c", False, "3", WEAK), Finding("d", False, "4", MASKING), Finding("e", None, "5", WEAK),
    ]  # fmt: skip
    assert verdict(found[:2], found[2:]) == f"not trustworthy: {MASKING} (failed: a: 1; d: 4), {WEAK} (failed: c: 3)"
