"""Deletion, insertion and rank correlation: numbers worked out by hand, and scipy's."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from trustml_cli.explainers.integrated_gradients import IntegratedGradients
from trustml_cli.explainers.linear import LinearWeights
from trustml_cli.explainers.measure import (
    area_under,
    completeness_gap,
    examine,
    in_random_order,
    rank_correlation,
    rank_correlations,
    replacement_curve,
)
from trustml_cli.explainers.saliency import Saliency


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


def test_a_random_order_names_each_pixel_as_often_in_each_step() -> None:
    many = X.expand(3000, 1, 2, 2)
    by_seed = [in_random_order(Odds(), many, TARGET.expand(3000), 4, seed).deletion for seed in (0, 0, 1)]
    assert by_seed[0].mean(0).tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0], abs=0.01)
    assert len(by_seed[0].unique(dim=0)) > 10
    assert torch.equal(by_seed[0], by_seed[1])
    assert not torch.equal(by_seed[0], by_seed[2])


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
    assert correlations["a"]["b"].tolist() == correlations["b"]["a"].tolist() == pytest.approx([1.0])  # one image
    assert len(correlations["a"]["a"]) == 2


def linear() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).requires_grad_(False)
    return model, model[1].weight


def test_examining_a_linear_model_finds_what_is_known_of_it() -> None:
    model, weight = linear()
    x, target = torch.rand(120, 1, 3, 3), torch.arange(120) % 3
    found = examine("linear", LinearWeights(), model, x, target, torch.rand(120, 4, 1, 3, 3), steps=9)
    assert list(found) == ["linear", "linear_x_input"]
    weights = weight[target].view(x.shape)
    torch.testing.assert_close(found["linear"].maps, weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(found["linear_x_input"].maps, x * weights, rtol=0, atol=1e-6)
    gaps = found["linear"].gaps
    assert gaps is not None
    assert gaps.shape == (120, 4)
    assert gaps.max() < 1e-12
    assert found["linear_x_input"].gaps is None
    shares = model(x).softmax(1).gather(1, target[:, None])[:, 0]
    for result in found.values():
        torch.testing.assert_close(result.deletion[:, 0], shares)
        torch.testing.assert_close(result.insertion[:, -1], shares)
        torch.testing.assert_close(result.insertion[:, 0], result.deletion[:, -1])
    product = found["linear_x_input"]
    assert area_under(product.insertion).mean() > shares.mean() > area_under(product.deletion).mean()


def test_the_map_is_measured_and_not_its_product_with_the_image() -> None:
    # weights 4, 3, 2, 1 of a sum; the pixels grow the other way, so that the products name the last pixel first
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    model[1].weight[0], model[1].weight[1] = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.zeros(4)
    model[1].bias.zero_()
    x = torch.tensor([0.1, 0.2, 0.5, 1.0]).view(1, 1, 2, 2)  # products 0.4, 0.6, 1.0, 1.0
    found = examine("saliency", Saliency(), model, x, TARGET, torch.zeros(1, 1, 1, 2, 2), steps=4)
    by_rate, by_product = (found[name].deletion[0].logit().tolist() for name in ("saliency", "saliency_x_input"))
    assert by_rate == pytest.approx([3.0, 2.6, 2.0, 1.0, 0.0], abs=1e-5)  # the logits that are left
    assert by_product == pytest.approx([3.0, 2.0, 1.0, 0.4, 0.0], abs=1e-5)
    backwards = found["saliency"].insertion[0].logit().tolist()
    assert backwards == pytest.approx([0.0, 0.4, 1.0, 2.0, 3.0], abs=1e-5)


def test_a_contribution_is_measured_from_its_own_baseline() -> None:
    # from grey, the black pixel takes away and the white one adds; from black, the black one would add nothing
    model, _ = linear()
    x, target = torch.rand(5, 1, 3, 3), torch.arange(5) % 3
    grey = IntegratedGradients(baseline=0.5, steps=2)
    found = examine("integrated", grey, model, x, target, torch.rand(5, 1, 1, 3, 3), steps=9)
    assert list(found) == ["integrated"]
    expected = replacement_curve(model, x, torch.zeros_like(x), grey(model, x, target), target, 9)
    assert torch.equal(found["integrated"].deletion, expected)
    from_black = replacement_curve(
        model, x, torch.zeros_like(x), grey.contributions(model, x, target, 0 * x), target, 9
    )
    assert not torch.allclose(expected, from_black, atol=1e-3)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_curve_of_saliency_is_that_of_captum_s_map_deleted_pixel_by_pixel() -> None:
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    model = nn.Sequential(*layers).requires_grad_(False)
    x, target = torch.rand(3, 1, 6, 6), torch.tensor([0, 1, 2])
    ours = examine("saliency", Saliency(), model, x, target, torch.rand(3, 1, 1, 6, 6), steps=36)["saliency"]
    theirs = attr.Saliency(model).attribute(x.clone().requires_grad_(), target=target)
    torch.testing.assert_close(ours.maps, theirs)
    for image, number, values, curve in zip(x, target, theirs, ours.deletion, strict=True):
        left, expected = image.clone(), [model(image[None]).softmax(1)[0, number].item()]
        for place in values.flatten().argsort(descending=True).tolist():
            left.view(-1)[place] = 0
            expected.append(model(left[None]).softmax(1)[0, number].item())
        assert curve.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_gaps_of_integrated_gradients_are_captum_s() -> None:
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3)).requires_grad_(False).double()
    x, target, start = torch.rand(6, 1, 3, 3).double(), torch.arange(6) % 3, torch.rand(6, 1, 3, 3).double()
    _, theirs = attr.IntegratedGradients(model).attribute(
        x, baselines=start, target=target, n_steps=1, return_convergence_delta=True
    )
    ours = completeness_gap(IntegratedGradients(baseline=0.0, steps=1), model, x, target, start)
    torch.testing.assert_close(ours, theirs.abs(), rtol=0, atol=1e-6)
    assert ours.max() > 1e-3


class Recurrent(nn.Module):
    """A GRU over rows whose first state is float32."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x[:, 0], torch.zeros(1, len(x), 3))[0][:, -1])  # type: ignore[no-any-return]


def test_completeness_of_a_network_that_cannot_compute_in_float64_is_measured_in_float32() -> None:
    torch.manual_seed(0)
    method = IntegratedGradients(baseline=0.0, steps=32)
    found = examine("ig", method, Recurrent(), X, TARGET, torch.rand(1, 2, 1, 2, 2), steps=2)["ig"]
    assert found.gaps is not None
    assert found.gaps.max() < 1e-5
