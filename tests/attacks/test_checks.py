"""The checks of one attack on its own, and the verdict that follows from all."""

from typing import Any

import pytest
import torch
from torch import nn

from trustml_cli.attacks.checks import (
    MASKING,
    WEAK,
    CheckResult,
    Comparison,
    check_monotone,
    check_steady,
    telling_epsilon,
    verdict,
)
from trustml_cli.attacks.power import smallest_gap
from trustml_cli.attacks.robustness_curve import EpsilonResult, Predictions, RobustnessCurve


def test_a_model_in_training_mode_is_found() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    x = torch.rand(50, 1, 4, 4)
    dropping = nn.Sequential(nn.Dropout(0.5), model)
    assert check_steady(dropping.eval(), x).passed
    finding = check_steady(dropping.train(), x)
    assert finding.passed is False
    assert finding.figure.startswith("7 layers in training mode")  # of the dropout, the five of the model, and both


def curve_of(right: list[int], epsilons: list[float]) -> RobustnessCurve:
    """Four images, of which so many are right at each epsilon; before the attack, all."""
    labels = torch.zeros(4, dtype=torch.long)
    clean = Predictions(labels, torch.ones(4))
    curve = RobustnessCurve(labels, clean, {}, torch.zeros(4, dtype=torch.bool), torch.zeros(4, 1))
    for epsilon, count in zip(epsilons, right, strict=True):
        answers = Predictions((torch.arange(4) >= count).long(), torch.ones(4))
        nothing = torch.zeros(4, dtype=torch.bool)
        curve.attacked.append(EpsilonResult(epsilon, answers, {}, {}, 0.0, 0.0, 0.0, nothing, 0.0, torch.zeros(4, 1)))
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


def judged(*found: CheckResult, **changes: Any) -> str:
    """The verdict on these findings of a comparison of 400 images."""
    facts = {"findings": found, "images": 400, "shows": smallest_gap(400), "untried": (), "optimal": False} | changes
    return verdict([], Comparison(**facts))


def test_a_verdict_names_each_cause_once_with_all_that_speaks_for_it() -> None:
    found = [
        CheckResult("a", False, "1", MASKING), CheckResult("b", True, "2", WEAK),
        CheckResult("c", False, "3", WEAK), CheckResult("d", False, "4", MASKING), CheckResult("e", None, "5", WEAK),
    ]  # fmt: skip
    expected = f"not trustworthy: {MASKING} (failed: a: 1; d: 4), {WEAK} (failed: c: 3)"
    assert verdict(found[:2], Comparison(found[2:])) == expected
    assert judged(*found, images=50, shows=smallest_gap(50), untried=("x",)) == expected  # a fault outweighs the rest


def test_trustworthy_takes_every_kind_of_attack_and_enough_images() -> None:
    beaten, no_such = CheckResult("a", True, "1", WEAK), CheckResult("b", None, "2", WEAK)
    assert judged(beaten, no_such) == "trustworthy"
    assert judged(no_such) == judged() == "not judged: compared with no other attack"
    missing = ("a targeted attack", "one on the margin")
    assert judged(beaten, untried=missing) == (
        "no check speaks against it; not tried: a targeted attack, one on the margin"
    )
    few = "not judged: 50 images would show only gaps of 17.4 points or more; 303 would show one of 3 points"
    assert judged(beaten, images=50, shows=smallest_gap(50), untried=missing) == few
    assert judged(beaten, images=4, shows=smallest_gap(4)).startswith("not judged: 4 images would show no gap; ")


def test_where_nothing_can_be_stronger_nothing_need_be_tried() -> None:
    assert judged(optimal=True, images=0) == "trustworthy"
    beaten = CheckResult("a", True, "1", WEAK)
    assert judged(beaten, optimal=True, untried=("x",)) == "trustworthy"  # the optimum was among the references
    assert judged(beaten, optimal=True, images=50, shows=smallest_gap(50)).startswith("not judged: 50 images")
    assert judged(CheckResult("a", False, "1", WEAK), optimal=True, images=0).startswith("not trustworthy")
