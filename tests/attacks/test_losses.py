"""The losses that attacks climb, worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import input_gradient
from trustml_cli.attacks.losses import (
    CLEAR,
    clear_margin,
    dlr,
    dlr_of_target,
    likeliest_wrong,
    log_odds,
    logit_margin,
    loss_gradient,
)

LOGITS = torch.tensor([[5.0, 1.0, 3.0, 2.0, 0.0]])


def label(number: int) -> Tensor:
    return torch.tensor([number])


@pytest.mark.parametrize(
    ("y", "target", "expected"),
    [
        (0, None, -(5 - 3) / (5 - 2)),  # read right: behind the second, over first less third
        (2, None, -(3 - 5) / (5 - 2)),  # read wrong: ahead is the first
        (0, 4, -(5 - 0) / (5 - (2 + 1) / 2)),  # targeted: over first less the mean of third and fourth
        (1, 2, -(1 - 3) / (5 - (2 + 1) / 2)),
    ],
)
def test_dlr_worked_out_by_hand(y: int, target: int | None, expected: float) -> None:
    goal = None if target is None else label(target)
    for scale in (1.0, 1000.0, 0.01):
        assert dlr(scale * LOGITS, label(y), goal).item() == pytest.approx(expected, rel=1e-6)


def test_dlr_of_few_classes() -> None:
    assert dlr(LOGITS[:, :3], label(0), None).item() == pytest.approx(-(5 - 3) / (5 - 1))
    assert dlr(LOGITS[:, :3], label(0), label(2)).item() == -2  # there is no fourth: the bare difference
    assert dlr(LOGITS[:, :2], label(0), None).item() == -4
    assert dlr(LOGITS[:, :2], label(0), label(1)).item() == -4


def test_dlr_of_a_target_that_must_lead_all_others() -> None:
    assert dlr_of_target(LOGITS, label(1), label(2)).item() == pytest.approx(-(5 - 3) / (5 - (2 + 1) / 2))
    assert dlr_of_target(LOGITS, label(1), label(0)).item() == pytest.approx((5 - 3) / (5 - (2 + 1) / 2))


def test_the_log_odds_are_those_of_the_cross_entropy_of_torch() -> None:
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 6
    expected = nn.functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(nn.functional.softplus(log_odds(logits, y, None)), expected)
    assert torch.equal(log_odds(logits, y.flip(0), y), -log_odds(logits, y, None))


@pytest.mark.parametrize("slope", [3.0, 30.0, 300.0, 3e8])
def test_log_odds_keep_value_and_gradient_where_a_model_is_sure(slope: float) -> None:
    model = nn.Linear(1, 3, bias=False).requires_grad_(False)
    model.weight.copy_(torch.tensor([[0.0], [slope], [0.0]]))
    x, y = torch.ones(1, 1), torch.tensor([1])
    _, odds, gradient = loss_gradient(model, x, lambda logits: log_odds(logits, y, None))
    assert odds.item() == pytest.approx(math.log(2) - slope)
    assert gradient.item() == pytest.approx(-slope)
    assert input_gradient(model, x, y).item() == pytest.approx(-slope)
    if slope == 3:  # there the gradient of the cross-entropy itself can be computed: 1 − p times as large
        wrong = 2 / (2 + math.exp(3))
        leaf = x.clone().requires_grad_(True)
        nn.functional.cross_entropy(model(leaf), y).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert leaf.grad.item() == pytest.approx(-slope * wrong)


def test_classes_that_are_ruled_out_and_images_without_an_answer() -> None:
    masked = torch.tensor([[2.0, 1.0, -math.inf, 0.5], [math.nan] * 4])
    y = torch.tensor([0, 0])
    assert logit_margin(masked, y, None).tolist() == [-1, -math.inf]
    assert clear_margin(masked, torch.tensor([1, 0]), None).tolist() == pytest.approx([1 - 2 * CLEAR, -math.inf])
    assert dlr(masked, y, None)[0].item() == pytest.approx(-1 / 1.5)
    assert dlr_of_target(masked, y, torch.tensor([1, 1]))[0].item() == -1  # there is no fourth


def test_leads_worked_out_by_hand() -> None:
    assert logit_margin(LOGITS, label(0), None).item() == -2
    assert logit_margin(LOGITS, label(1), None).item() == 4
    assert logit_margin(LOGITS, label(0), label(2)).item() == -2
    assert logit_margin(LOGITS, label(1), label(0)).item() == 2
    tied = torch.tensor([[7.0, 7.0]])
    assert logit_margin(tied, label(1), None).item() == 0
    assert clear_margin(tied, label(1), None).item() < 0  # a tie is not a success, nor is what rounding may take
    assert clear_margin(LOGITS, label(1), None).item() > 0


def test_the_likeliest_wrong_classes_leave_out_the_true_one() -> None:
    assert likeliest_wrong(LOGITS, label(0), 3).tolist() == [[2, 3, 1]]
    assert likeliest_wrong(LOGITS, label(2), 9).tolist() == [[0, 3, 1, 4]]
