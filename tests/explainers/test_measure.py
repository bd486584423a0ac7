"""Deletion, insertion and rank correlation: numbers worked out by hand, and scipy's."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from trustml_cli.explainers.linear import LinearWeights
from trustml_cli.explainers.measure import (
    area_under,
    examine,
    rank_correlation,
    rank_correlations,
    replacement_curve,
)


class Odds(nn.Module):
    """Probability of class 0 is the sum of the pixels, which are chosen to add up to 1 at most."""

    def forward(self, x: Tensor) -> Tensor:
        share = x.flatten(1).sum(1).clamp(1e-6, 1 - 1e-6)
        return torch.stack([share.log(), (1 - share).log()], 1)


X = torch.tensor([[0.4, 0.1], [0.3, 0.2]]).view(1, 1, 2, 2)
TARGET = torch.tensor([0])


def test_pixels_go_in_the_order_of_their_importance() -> None:
    blank = torch.zeros_like(X)
    deletion = replacement_curve(Odds(), X, blank, X, TARGET, steps=4)
    assert deletion[0].tolist() == pytest.approx([1.0, 0.6, 0.3, 0.1, 0.0], abs=1e-5)
    insertion = replacement_curve(Odds(), blank, X, X, TARGET, steps=4)
    assert insertion[0].tolist() == pytest.approx([0.0, 0.4, 0.7, 0.9, 1.0], abs=1e-5)
    assert replacement_curve(Odds(), X, blank, -X, TARGET, steps=4)[0, 1].item() == pytest.approx(0.9, abs=1e-5)
    assert replacement_curve(Odds(), X, blank, X, TARGET, steps=2)[0].tolist() == pytest.approx([1, 0.3, 0], abs=1e-5)
    assert replacement_curve(Odds(), X, blank, X, 1 - TARGET, steps=4)[0, 1].item() == pytest.approx(0.4, abs=1e-5)


def test_channels_of_a_place_go_together() -> None:
    x = torch.cat([X, X.flip(-1)], 1) / 2  # sums by place: 0.25, 0.25, 0.25, 0.25
    importance = torch.cat([X, torch.zeros_like(X)], 1)
    curve = replacement_curve(Odds(), x, torch.zeros_like(x), importance, TARGET, steps=4)
    assert curve[0].tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0], abs=1e-5)


def test_areas_by_the_trapezoid_rule() -> None:
    assert area_under(torch.tensor([[1.0, 0.6, 0.3, 0.1, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]])).tolist() == pytest.approx(
        [(0.5 + 0.6 + 0.3 + 0.1) / 4, 1.0]
    )


def test_rank_correlation_is_scipy_s_ties_included() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randint(0, 5, (6, 1, 4, 4), generator=random).float()
    b = a + torch.randint(-3, 3, (6, 1, 4, 4), generator=random)
    expected = [spearmanr(one.flatten(), other.flatten()).statistic for one, other in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(expected)
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1.0] * 6)


def test_images_that_one_method_is_silent_about_do_not_count() -> None:
    a = torch.stack([X[0], X[0]])
    b = torch.stack([X[0], torch.zeros_like(X[0])])
    correlations = rank_correlations({"a": a, "b": b})
    assert correlations["a"]["b"] == correlations["b"]["a"] == pytest.approx(1.0)


def test_examining_a_linear_model_finds_what_is_known_of_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).requires_grad_(False)
    x, target = torch.rand(120, 1, 3, 3), torch.arange(120) % 3
    result = examine(LinearWeights(), model, x, target, torch.rand(120, 4, 1, 3, 3), steps=9)
    weights = model[1].weight[target].view(x.shape)
    torch.testing.assert_close(result.attribution, weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.contributions, x * weights, rtol=0, atol=1e-6)
    assert result.gaps.shape == (120, 4)
    assert result.gaps.max() < 1e-12
    shares = model(x).softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(result.deletion[:, 0], shares)
    torch.testing.assert_close(result.insertion[:, -1], shares)
    torch.testing.assert_close(result.insertion[:, 0], result.deletion[:, -1])
    assert area_under(result.insertion).mean() > shares.mean() > area_under(result.deletion).mean()
