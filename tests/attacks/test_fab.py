"""FAB against the code of its authors and against the exact answer for a linear model."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.attempts import AttackState
from trustml_cli.attacks.fab import FAB, between
from trustml_cli.attacks.geometry import lengths
from trustml_cli.attacks.linear import LinearOptimum
from trustml_cli.attacks.measure import sizes
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]


def fab(norm: Norm, target: int | None = None, steps: int = 30, restarts: int = 1, targets: int = 3) -> FAB:
    return FAB(norm=norm, target=target, steps=steps, restarts=restarts, targets=targets)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", FAB.norms)
def test_perturbations_are_as_small_as_with_the_authors_code(norm: Norm, digits: Digits) -> None:
    from pyautoattack.fab_pt import FABAttack_PT

    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    name = {Norm.linf: "Linf", Norm.l2: "L2", Norm.l1: "L1"}[norm]
    for rank in (2, 3):  # to the likeliest wrong class, then to the next: every image, every step
        peer = FABAttack_PT(model, norm=name, n_iter=30, targeted=True, device="cpu")
        peer.target_class = rank
        theirs = peer.attack_single_run(x, y, is_targeted=True)
        state = AttackState(model, x, y, None)
        attempt = list(state.attempts(rank - 1))[-1]
        ours, size, _ = fab(norm).run(model, attempt, None, enough=0.0)
        assert size.isfinite().all()
        assert (model(ours).argmax(1) != y).all()
        difference = (size - sizes(theirs - x)[norm]).abs() / size
        assert difference.median() < 1e-4  # float32, over thirty steps
        assert size.mean().item() == pytest.approx(sizes(theirs - x)[norm].mean().item(), rel=0.01)


@pytest.mark.parametrize("norm", FAB.norms)
def test_on_a_linear_model_it_finds_the_optimum(
    norm: Norm, linear_model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x = images[0]
    y = linear_model(x).argmax(1)
    ours = sizes(fab(norm, targets=2).smallest(linear_model, x, y) - x)[norm]
    best = sizes(LinearOptimum(norm=norm, target=None).smallest(linear_model, x, y) - x)[norm]
    assert (ours >= best - 1e-5).all()
    torch.testing.assert_close(ours, best, rtol=0.06, atol=1e-4)  # it goes 5 % beyond the boundary


def test_a_step_worked_out_by_hand() -> None:
    x, x_adv = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[0.7, 0.5]]]])
    normal, ahead = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([-0.5])
    # from x_adv 0.1 along (0.6, 0.8), from x 0.22; the nearer one would weigh 0.1/0.32, at most 0.1
    near, far = x_adv.flatten() + 1.05 * 0.1 * torch.tensor([0.6, 0.8]), 0.5 + 1.05 * 0.22 * torch.tensor([0.6, 0.8])
    expected = 0.9 * near + 0.1 * far
    torch.testing.assert_close(between(x, x_adv, normal, ahead, Norm.l2).flatten(), expected)


def test_besieging_stops_within_epsilon_and_searching_goes_on(digits: Digits) -> None:
    model, x, y = digits
    state = AttackState(model, x, y, None)
    attack = fab(Norm.linf)
    attack.attack_remaining(state, 0.1)
    fell = model(state.best).argmax(1) != y
    nearest = attack(model, x, y, 1.0)
    smallest, first = sizes(nearest - x)[Norm.linf], sizes(state.best - x)[Norm.linf]
    assert 0.1 < fell.double().mean() < 0.95
    assert (first <= 0.1 + 1e-6).all()
    assert (smallest[fell] <= first[fell] + 1e-6).all()
    assert (smallest[fell] < first[fell] - 1e-3).any()
    assert torch.equal(fell, smallest <= 0.1)


def test_restarts_begin_elsewhere_and_keep_the_nearest(digits: Digits) -> None:
    model, x, y = digits[0], digits[1][:40], digits[2][:40]
    found = []
    for restarts in (1, 4):
        with seeded(0):
            found.append(sizes(fab(Norm.l2, steps=3, restarts=restarts).smallest(model, x, y) - x)[Norm.l2])
    assert (found[1] <= found[0]).all()
    assert (found[1] < found[0] - 1e-4).any()


def test_a_target_alone_counts(digits: Digits) -> None:
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    others = y != 3
    x_adv = fab(Norm.l2, target=3).smallest(model, x[others], y[others])
    reached = model(x_adv).argmax(1) == 3
    assert reached.double().mean() > 0.95
    any_wrong = fab(Norm.l2, targets=9).smallest(model, x[others], y[others])
    assert (lengths(x_adv - x[others]) - lengths(any_wrong - x[others]) > -0.05)[reached].all()


def test_values_out_of_range_are_refused() -> None:
    for key in ("steps", "restarts", "targets"):
        with pytest.raises(ValueError, match=f"^{key}: must be at least 1, got 0"):
            fab(Norm.linf, **{key: 0})
