"""An attack is held against others of its kind: what they must find, on small networks whose fault is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.attacks.planted import Decoys, Jittered, Scaled, Stepped
from trustml_cli.attacks.apgd import APGD
from trustml_cli.attacks.attack import Access, Attack, Norm
from trustml_cli.attacks.bim import BIM
from trustml_cli.attacks.checks import (
    MASKING,
    RANDOMISED,
    WEAK,
    CheckResult,
    check_gradients,
    check_monotone,
    check_steady,
    verdict,
)
from trustml_cli.attacks.comparison import AttackComparison, ConstrainedAttack, matched_to, survived, with_more_effort
from trustml_cli.attacks.confident import Confident
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.linear import LinearOptimum
from trustml_cli.attacks.losses import Loss, logit_margin
from trustml_cli.attacks.measure import attack_curve
from trustml_cli.attacks.noise import Noise
from trustml_cli.attacks.pgd import PGD
from trustml_cli.system.hardware import seeded

Images = tuple[nn.Module, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Corners(Attack):
    """Pushes one value after the other to the side where the margin is smaller: a black box."""

    norms: ClassVar = (Norm.linf,)
    access: ClassVar = Access.query

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        x_adv = x.flatten(1).clone()
        for place in range(x_adv.shape[1]):
            up, down = x_adv.clone(), x_adv.clone()
            up[:, place], down[:, place] = x_adv[:, place] + epsilon, x_adv[:, place] - epsilon
            higher = logit_margin(model(up.view_as(x)), y, None) > logit_margin(model(down.view_as(x)), y, None)
            x_adv = torch.where(higher[:, None], up, down).clamp(0, 1)
        return x_adv.view_as(x)


def pgd(**changes: Any) -> PGD:
    settings = {
        "loss": Loss.ce,
        "steps": 20,
        "step_size": None,
        "rel_path_length": 2.5,
        "random_start": True,
        "restarts": 1,
    } | changes
    return PGD(norm=Norm.linf, target=None, **settings)


REFERENCES: dict[str, Attack] = {
    "one_step": FGSM(norm=Norm.l2, target=None),  # the norm becomes that of the attack
    "iterative": pgd(),
    "targeted": APGD(norm=Norm.linf, target=None, loss=Loss.dlr, steps=10, restarts=1, rho=0.75, targets=3),
    "margin": pgd(loss=Loss.margin),
    "black_box": Corners(norm=Norm.linf, target=None),
    "control": Noise(norm=Norm.linf, target=None),
    "exact": LinearOptimum(norm=Norm.l2, target=None),
}


@pytest.fixture(scope="module")
def trained() -> Images:
    """Two classes of 1×4×4 images, told apart by a small network, and 320 images."""
    with seeded(0):
        y = torch.arange(320) % 2
        centre = torch.where(torch.rand(16) < 0.5, 0.35, 0.65)
        x = torch.where(y[:, None] == 1, centre, 1 - centre) + 0.15 * torch.randn(320, 16)
        x = x.clamp(0, 1).view(-1, 1, 4, 4)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(150):
            loss = cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return network.eval().requires_grad_(False), x, y


def findings(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    epsilon: float = 0.15,
    references: Mapping[str, Attack] = REFERENCES,
) -> tuple[dict[str, CheckResult], str]:
    """Every check by name, and the verdict."""
    with seeded(0):
        curve = attack_curve(model, attack, [(x, y)], [epsilon / 3, epsilon], keep=0)
        checked = [check_gradients(curve), check_monotone(curve), check_steady(model, x)]
        stands = survived(attack, curve.attacked[1].answers.predicted, y)
        half = len(x) // 2 + 1
        bench = AttackComparison(model, [(x[:half], y[:half]), (x[half:], y[half:])], epsilon, attack, stands)
        compared = bench.compare(references)
    return {finding.name: finding for finding in (*checked, *compared.findings)}, verdict(checked, compared)


def failed(found: dict[str, CheckResult]) -> set[str]:
    return {name for name, finding in found.items() if finding.passed is False}


def not_applicable(found: dict[str, CheckResult]) -> set[str]:
    return {name for name, finding in found.items() if finding.passed is None}


def test_an_honest_model_under_a_good_attack_is_trustworthy(trained: Images) -> None:
    found, judged = findings(*trained, pgd())
    assert not failed(found)
    assert not_applicable(found) == {"the optimum of a linear model is not stronger"}
    assert judged == "trustworthy"
    figure = found["a targeted attack is not stronger"].figure
    assert figure.endswith(
        "that survive are misclassified under it (n = 320, epsilon 0.15); a gap of 2.8 points would have shown"
    )


def test_saturated_logits_mask_nothing(trained: Images) -> None:
    model, x, y = trained
    found, judged = findings(Scaled(model, 1000.0).eval(), x, y, pgd())
    assert not failed(found)
    assert judged == "trustworthy"


def test_whole_numbers_are_found_to_mask_the_gradient(trained: Images) -> None:
    model, x, y = trained
    found, judged = findings(Stepped(model).eval(), x, y, pgd())
    assert {"gradients are not zero", "a white box is not weaker than a black box"} <= failed(found)
    assert "an unlimited budget leaves nothing standing" in failed(found)
    assert judged.startswith(f"not trustworthy: {MASKING} (failed: ")


def test_a_randomised_model_is_found(trained: Images) -> None:
    model, x, y = trained
    found, judged = findings(Jittered(model).eval(), x, y, pgd())
    assert "the model is in eval mode and deterministic" in failed(found)
    assert RANDOMISED in judged


DECOYS = Decoys().eval()
GREY = torch.full((320, 1, 2, 2), 0.5), torch.zeros(320, dtype=torch.long)
KINDS = {
    role: reference for role, reference in REFERENCES.items() if role != "exact"
}  # Decoys are linear, which is not the point


def test_a_loss_that_runs_after_decoys_is_found_by_attacks_that_do_not() -> None:
    blind = pgd(random_start=False)
    found, judged = findings(DECOYS, *GREY, blind, 0.3, KINDS)
    assert failed(found) == {
        "a white box is not weaker than a black box",
        "a common iterative attack is not stronger",  # it begins at random points
        "a targeted attack is not stronger",
        "an attack on the margin is not stronger",
    }
    assert judged.startswith(f"not trustworthy: {MASKING} (failed: a white box is not weaker")
    sightless = {"one_step": KINDS["one_step"], "iterative": blind, "control": KINDS["control"]}
    _, judged = findings(DECOYS, *GREY, blind, 0.3, sightless)
    assert judged == (
        "no check speaks against it; not tried: a targeted attack, one on the margin, one without gradients"
    )


def test_rivals_are_shown_the_images_that_stand_and_no_others() -> None:
    shown: list[int] = []

    @dataclass(frozen=True, kw_only=True)
    class Watched(PGD):
        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
            shown.append(len(x))
            return x

    x, y = GREY
    stands = torch.arange(320) % 4 == 0
    idle = Watched(**{**vars(pgd()), "steps": 1})
    bench = AttackComparison(DECOYS, [(x[:200], y[:200]), (x[200:], y[200:])], 0.3, pgd(), stands)
    assert bench.compare({"targeted": idle}).untried == ["one on the margin", "one without gradients"]
    assert shown == [80]  # together, where two batches have 50 and 30
    shown.clear()
    AttackComparison(DECOYS, [(x, y)], 0.3, pgd(), torch.zeros(320, dtype=torch.bool)).compare({"targeted": idle})
    assert shown == []


def test_gradients_are_masked_only_where_the_other_attack_is_stronger_altogether(trained: Images) -> None:
    model, x, y = trained
    bench = AttackComparison(model, [(x, y)], 0.15, pgd(), torch.ones(320, dtype=torch.bool))
    left = torch.arange(320) >= 20
    noise = REFERENCES["control"]  # fells next to nothing: what has not fallen to it has fallen to the attack alone
    assert bench.not_masked("", left, noise).speaks_of == MASKING
    bench.stands = torch.arange(320) < 160
    found = bench.not_masked("", left & bench.stands, noise)
    assert (found.passed, found.speaks_of) == (False, WEAK)


def test_an_attack_of_too_few_steps_is_found_too_weak(trained: Images) -> None:
    timid = BIM(norm=Norm.linf, target=None, steps=2, step_size=0.03, rel_path_length=1.0)
    found, judged = findings(*trained, timid)
    assert "more steps change nothing" in failed(found)
    assert WEAK in judged
    assert MASKING in judged  # one whole step does more


def test_noise_is_no_attack(trained: Images) -> None:
    found, _ = findings(*trained, Noise(norm=Norm.linf, target=None))
    assert {"a common iterative attack is not stronger", "a targeted attack is not stronger"} <= failed(found)
    assert found["the attack is stronger than random noise"].passed is None


@dataclass(frozen=True, kw_only=True)
class Idle(Attack):
    norms: ClassVar = (Norm.linf,)
    steps: int = 1

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return x


def test_an_attack_that_does_nothing_is_found(trained: Images) -> None:
    found, _ = findings(*trained, Idle(norm=Norm.linf, target=None), epsilon=0.6)
    assert {"the attack is stronger than random noise", "an unlimited budget leaves nothing standing"} <= failed(found)


def test_where_nothing_falls_noise_tells_nothing_and_the_network_is_believed(trained: Images) -> None:
    found, judged = findings(*trained, pgd(), epsilon=1e-4)
    assert not_applicable(found) == {
        "the attack is stronger than random noise",
        "the optimum of a linear model is not stronger",
    }
    assert judged == "trustworthy"


def test_an_attack_is_held_against_others_on_few_images_in_vain(trained: Images) -> None:
    model, x, y = trained
    _, judged = findings(model, x[:50], y[:50], pgd())
    assert judged == "not judged: 50 images would show only gaps of 17.4 points or more; 303 would show one of 3 points"
    at_most = AttackComparison(model, [(x[:50], y[:50])], 0.3, pgd(), torch.zeros(50, dtype=torch.bool), upright=0.01)
    assert at_most.shows == 0.01  # where one in a hundred stands, a hundredth is all that can be gained


def test_without_rivals_in_its_norm_nothing_is_compared(trained: Images) -> None:
    model, x, y = trained
    bench = AttackComparison(model, [(x, y)], 2.0, Noise(norm=Norm.l0, target=None), torch.ones(320, dtype=torch.bool))
    compared = bench.compare({"iterative": pgd()})
    assert {finding.passed for finding in compared.findings} == {None}
    assert verdict([check_steady(model, x)], compared) == "not judged: compared with no other attack"


def test_a_linear_model_has_its_optimum_among_the_rivals_and_the_optimum_has_none() -> None:
    found, judged = findings(DECOYS, *GREY, pgd(random_start=False), 0.3)
    assert "the optimum of a linear model is not stronger" in failed(found)
    aimed = {role: KINDS[role] for role in ("iterative", "control")} | {"exact": REFERENCES["exact"]}
    found, judged = findings(DECOYS, *GREY, pgd(loss=Loss.margin, random_start=False), 0.3, aimed)
    assert judged == "trustworthy"  # nothing can be stronger than the optimum, so nothing else need be tried
    found, judged = findings(DECOYS, *GREY, LinearOptimum(norm=Norm.linf, target=None), 0.3)
    assert judged == "trustworthy"
    assert len(found) == 3  # it was held against no other


def only_adds(**changes: Any) -> Confident:
    settings = {"confidence": 0.9, "steps": 20, "step_size": 0.05, "nothing_erased": True, "binary": False} | changes
    return Confident(norm=Norm.linf, target=None, **settings)


def test_rivals_keep_to_what_the_attack_may_do() -> None:
    free, _ = findings(DECOYS, *GREY, pgd(random_start=False), 0.3, KINDS)
    bound, judged = findings(DECOYS, *GREY, only_adds(), 0.3, KINDS)  # only darker images are misread
    assert failed(free)
    assert not failed(bound)
    assert judged == "trustworthy"
    assert bound["an unlimited budget leaves nothing standing"].passed is None
    assert findings(DECOYS, *GREY, only_adds(binary=True), 0.3, KINDS)[1].startswith(
        "no check speaks against it; not tried"
    )


@pytest.mark.parametrize("role", ["one_step", "iterative", "targeted", "margin", "control"])
def test_a_rival_of_an_attack_that_only_adds_goes_all_of_the_way_and_only_up(role: str, trained: Images) -> None:
    model, x, y = trained
    reference = matched_to(only_adds(), REFERENCES[role], model, x)
    assert isinstance(reference, ConstrainedAttack)
    with seeded(0):
        change = reference(model, x, y, 0.2) - x
    room = (1 - x).clamp(max=0.2)
    assert (change >= -1e-6).all()
    assert (change <= room + 1e-6).all()
    assert (change / room)[room > 0.1].amax() > 0.95


def test_more_effort_is_twice_the_steps_from_another_start() -> None:
    assert with_more_effort(pgd(restarts=5)) == pgd(steps=40)
    assert with_more_effort(pgd(random_start=False)) == pgd(steps=40, random_start=False)
    assert with_more_effort(FGSM(norm=Norm.linf, target=None)) is None
