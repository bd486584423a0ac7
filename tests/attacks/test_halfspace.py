"""The smallest change across a hyperplane within [0, 1], against solvers that know nothing of its form."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.attacks.solvers import solved
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.halfspace import into_halfspace
from trustml_cli.attacks.measure import sizes


def problems(count: int, values: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images with many values at 0 or 1, normals with some zeros, gaps from nothing to nearly all that is possible."""
    random = torch.Generator().manual_seed(seed)
    x = (1.6 * torch.rand(count, values, generator=random, dtype=torch.float64) - 0.3).clamp(0, 1)
    normal = torch.randn(count, values, generator=random, dtype=torch.float64)
    normal[torch.rand(count, values, generator=random) < 0.15] = 0
    most = torch.where(normal > 0, normal * (1 - x), -normal * x).sum(1)
    return x, normal, most * torch.linspace(0, 0.99, count, dtype=torch.float64)


@pytest.mark.parametrize("norm", [Norm.linf, Norm.l2, Norm.l1])
def test_no_solver_finds_a_smaller_change(norm: Norm) -> None:
    x, normal, gap = problems(30, 20)
    change = into_halfspace(x, normal, gap, norm)
    ours = sizes(change)[norm].tolist()
    theirs = [solved(*problem, norm) for problem in zip(x, normal, gap, strict=True)]
    assert ours == pytest.approx(theirs, abs=1e-7)
    assert ((change * normal).sum(1) >= gap - 1e-12).all()


def test_no_choice_of_values_is_smaller_in_l0() -> None:
    x, normal, gap = problems(30, 8, seed=1)
    change = into_halfspace(x, normal, gap, Norm.l0)
    gains = torch.where(normal > 0, normal * (1 - x), -normal * x)
    for number in range(30):
        fewest = next(
            size
            for size in range(9)
            if any(gains[number, list(places)].sum() >= gap[number] for places in combinations(range(8), size))
        )
        assert (change[number] != 0).sum() == fewest


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), values=st.integers(1, 40), share=st.floats(0, 2), norm=st.sampled_from(Norm))
def test_it_goes_as_far_as_it_must_and_may(seed: int, values: int, share: float, norm: Norm) -> None:
    x, normal, _ = problems(4, values, seed)
    x, normal = x.float(), normal.float()
    most = torch.where(normal > 0, normal * (1 - x), -normal * x).sum(1)
    change = into_halfspace(x, normal, share * most, norm)
    moved = x + change
    assert (moved >= -1e-6).all()
    assert (moved <= 1 + 1e-6).all()
    torch.testing.assert_close((change * normal).sum(1), min(share, 1) * most, rtol=1e-4, atol=1e-5)
    assert (change[normal == 0] == 0).all()
