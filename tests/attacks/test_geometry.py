"""Balls around images: what must hold for every image, and closed forms on small ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import (
    ascend,
    lengths,
    normalised,
    onto_ball,
    project,
    random_start,
    unit_step,
)
from trustml_cli.attacks.measure import sizes, within_budget
from trustml_cli.system.hardware import seeded


def pictures(seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Five images of 2×3×3, some values at the edges of [0, 1], and points around them that may lie outside."""
    random = torch.Generator().manual_seed(seed)
    x = (torch.rand(5, 2, 3, 3, generator=random) * 1.4 - 0.2).clamp(0, 1)
    return x, x + spread * torch.randn(x.shape, generator=random)


CASES = {
    "norm": st.sampled_from(list(Norm)), "seed": st.integers(0, 10_000),
    "epsilon": st.floats(0, 12, width=32), "spread": st.floats(0, 3, width=32),
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(**CASES)
def test_a_projection_is_in_range_within_budget_and_its_own_projection(
    norm: Norm, seed: int, epsilon: float, spread: float
) -> None:
    x, moved = pictures(seed, spread)
    projected = project(moved, x, epsilon, norm)
    assert within_budget(projected, x, epsilon, norm)
    torch.testing.assert_close(project(projected, x, epsilon, norm), projected, atol=1e-6, rtol=0)
    assert torch.equal(project(x, x, epsilon, norm), x)
    one_by_one = [project(moved[i : i + 1], x[i : i + 1], epsilon, norm) for i in range(len(x))]
    torch.testing.assert_close(torch.cat(one_by_one), projected, atol=1e-6, rtol=0)


@settings(max_examples=100, deadline=None)
@given(**CASES)
def test_a_random_start_is_in_range_and_within_budget(norm: Norm, seed: int, epsilon: float, spread: float) -> None:
    x, _ = pictures(seed, spread)
    with seeded(seed):
        assert within_budget(random_start(x, epsilon, norm), x, epsilon, norm)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(0, 12, width=32), spread=st.floats(0, 3, width=32))
def test_no_image_in_range_and_in_the_l1_ball_is_nearer_than_the_projection(
    seed: int, epsilon: float, spread: float
) -> None:
    x, moved = (images.double()[:1] for images in pictures(seed, spread))
    nearest = project(moved, x, epsilon, Norm.l1)
    assert nearest.min() >= 0
    assert nearest.max() <= 1
    assert (nearest - x).abs().sum() <= epsilon + 1e-9
    # both sets are convex: it is the nearest point if no other lies further along the way that is left
    away = moved - nearest
    assert farthest_along(away, x, epsilon) - float((away * (nearest - x)).sum()) <= 1e-7


def farthest_along(slope: Tensor, x: Tensor, epsilon: float) -> float:
    """The largest slope·d of all changes d of one image with ‖d‖₁ ≤ epsilon and x + d in [0, 1], by scipy."""
    from scipy.optimize import linprog

    flat, gain = x.flatten().double().numpy(), slope.flatten().double().numpy()
    # the change as up − down with both at least 0; linprog minimises
    bounds = [(0, 1 - value) for value in flat] + [(0, value) for value in flat]
    return -float(linprog([*-gain, *gain], A_ub=[[1.0] * (2 * len(flat))], b_ub=[epsilon], bounds=bounds).fun)


def test_each_image_may_have_a_budget_of_its_own() -> None:
    x, moved = pictures(3, 1.0)
    epsilons = torch.tensor([0.0, 0.3, 1.0, 2.5, 40.0])
    for norm in Norm:
        each = [project(moved[i : i + 1], x[i : i + 1], epsilons[i].item(), norm) for i in range(5)]
        torch.testing.assert_close(project(moved, x, epsilons, norm), torch.cat(each))


def test_projections_worked_out_by_hand() -> None:
    x = torch.full((1, 1, 1, 3), 0.5)
    moved = x + torch.tensor([[[[0.3, -0.4, 0.0]]]])

    def changes(epsilon: float, norm: Norm) -> list[float]:
        return [round(value, 5) for value in (project(moved, x, epsilon, norm) - x).flatten().tolist()]

    assert changes(0.35, Norm.linf) == [0.3, -0.35, 0.0]
    assert changes(0.25, Norm.l2) == [0.15, -0.2, 0.0]
    assert changes(0.3, Norm.l1) == [0.1, -0.2, 0.0]  # each 0.2 nearer to zero
    assert changes(0.1, Norm.l1) == [0.0, -0.1, 0.0]
    assert changes(1.0, Norm.l0) == [0.0, -0.4, 0.0]
    assert changes(0.9, Norm.l0) == [0.0, 0.0, 0.0]


def test_unit_steps_worked_out_by_hand() -> None:
    gradient = torch.tensor([[3.0, -4.0, 0.0], [2.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
    assert unit_step(gradient, Norm.linf).tolist() == [[1, -1, 0], [1, -1, 1], [0, 0, 0]]
    torch.testing.assert_close(unit_step(gradient, Norm.l2)[0], torch.tensor([0.6, -0.8, 0.0]))
    assert unit_step(gradient, Norm.l1).tolist() == [[0, -1, 0], [0.5, -0.5, 0], [0, 0, 0]]
    assert unit_step(gradient, Norm.l2)[2].tolist() == [0, 0, 0]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(0, 12, width=32))
def test_the_l1_step_is_the_best_that_a_linear_programme_finds(seed: int, epsilon: float) -> None:
    x, gradient = (tensor[:1] for tensor in pictures(seed, 1.0))
    stepped = ascend(x, gradient, epsilon, Norm.l1)
    assert within_budget(stepped.clamp(0, 1), x, epsilon, Norm.l1)
    assert stepped.min() >= -1e-6
    assert stepped.max() <= 1 + 1e-6
    gained = float(((stepped - x).double() * gradient.double()).sum())
    assert gained == pytest.approx(farthest_along(gradient, x, epsilon), abs=1e-5)


def test_random_starts_are_spread_evenly_over_the_ball() -> None:
    values, count = 12, 4000
    x = torch.full((count, 1, 3, 4), 0.5)
    with seeded(0):
        drawn = {norm: random_start(x, 0.4, norm) - x for norm in (Norm.linf, Norm.l2, Norm.l1)}
    for norm, change in drawn.items():
        # of a ball's volume, the share (r/ε)^values lies within r: evenly spread points have it uniform
        share = (sizes(change)[norm] / 0.4) ** values
        quantiles = share.sort().values[[count // 10, count // 2, 9 * count // 10]]
        torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.5, 0.9]), atol=0.03, rtol=0)
        assert change.mean().abs() < 0.005
    # by symmetry; the mean size of a value, E|c| = ε/(values + 1) in L1 and ε/2 in L∞
    assert drawn[Norm.l1].abs().mean().item() == pytest.approx(0.4 / 13, rel=0.02)
    assert drawn[Norm.linf].abs().mean().item() == pytest.approx(0.2, rel=0.02)


def test_a_random_start_in_l0_changes_so_many_values() -> None:
    x = torch.full((50, 1, 3, 4), 0.5)
    with seeded(0):
        change = random_start(x, 5.0, Norm.l0) - x
    assert sizes(change)[Norm.l0].tolist() == [5] * 50
    assert (change.flatten(1) != 0).any(0).all()


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
