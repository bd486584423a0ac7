"""Look-alikes are as far away as they are meant to be; distances are those of torch's norms."""

import pytest
import torch

from trustml_cli.corruptions.look_alike import GREY_LEVEL, brighter, distances, every_value, moved, one_pixel

X = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))


def test_each_change_is_large_in_its_norm_and_stays_in_range() -> None:
    extremes = torch.cat([X, torch.zeros(1, 2, 4, 5), torch.ones(1, 2, 4, 5)])
    for changed in (every_value(extremes), brighter(extremes, 0.2), moved(extremes, 1), one_pixel(extremes)):
        assert changed.shape == extremes.shape
        assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.allclose((every_value(extremes) - extremes).abs(), torch.tensor(GREY_LEVEL))
    assert brighter(torch.tensor([[[[0.1, 0.9]]]]), 0.2).flatten().tolist() == pytest.approx([0.3, 1.0])
    assert torch.equal(moved(X, 1)[..., 1:], X[..., :-1])
    assert torch.equal(moved(X, 1)[..., 0], X[..., 0])
    differs = one_pixel(extremes) != extremes
    assert differs.sum((1, 2, 3)).tolist() == [2] * 5  # two channels
    assert ((one_pixel(extremes) - extremes).abs().amax((1, 2, 3)) >= 0.5).all()


@pytest.mark.parametrize(("norm", "order"), [("l0", 0), ("l1", 1), ("l2", 2), ("linf", torch.inf)])
def test_distances_are_norms_of_differences(norm: str, order: float) -> None:
    others = torch.cat([X[1:], X.flip(0)])
    found = distances(X, others, norm)
    for i, one in enumerate(X):
        for j, other in enumerate(others):
            expected = torch.linalg.vector_norm((one - other).flatten(), order)
            assert found[i, j] == pytest.approx(expected.item(), abs=1e-3)
