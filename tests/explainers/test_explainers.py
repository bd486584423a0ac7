"""Every explainer in conf/explainer on linear and other models, against closed forms and captum."""

import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.config.instantiate import build
from trustml_cli.explainers.explainer import Explainer, Unsuitable
from trustml_cli.explainers.integrated_gradients import IntegratedGradients
from trustml_cli.explainers.measure import completeness_gap
from trustml_cli.explainers.occlusion import Occlusion
from trustml_cli.explainers.smoothgrad import SmoothGrad
from trustml_cli.models.model import Normalize
from trustml_cli.system.errors import InputError

SHAPE, CLASSES = (2, 7, 6), 4


def explainer(name: str, **changes: object) -> Explainer:
    node = choice("explainer", name, **changes)
    built: Explainer = build(node, f"explainer.{name}")
    return built


@pytest.fixture
def linear() -> nn.Module:
    torch.manual_seed(0)
    layers = [Normalize((0.3, 0.5), (0.2, 0.4)), nn.Flatten(), nn.Linear(84, CLASSES)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.fixture
def smooth() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 5 * 4, CLASSES)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    return torch.rand(8, *SHAPE, generator=random), torch.arange(8) % CLASSES


def weights_of(linear: nn.Module, target: Tensor) -> Tensor:
    """Rows of the weights in pixel space, by hand."""
    rows: Tensor = linear[2].weight.view(CLASSES, *SHAPE) / torch.tensor([0.2, 0.4]).view(1, 2, 1, 1)
    return rows[target]


@pytest.mark.parametrize("name", choices("explainer"))
def test_attributions_have_the_shape_of_the_image_and_depend_on_it_alone(
    name: str, linear: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, target = images
    method = explainer(name)
    torch.manual_seed(3)
    together = method(linear, x, target)
    assert together.shape == x.shape
    assert not together.requires_grad
    assert together.abs().max() > 0.01
    torch.manual_seed(3)
    alone = method(linear, x[:1], target[:1])
    torch.testing.assert_close(alone, together[:1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", choices("explainer"))
def test_the_class_that_is_asked_for_is_explained(name: str, linear: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, target = images
    other = (target + 1) % CLASSES
    assert (explainer(name)(linear, x, target) - explainer(name)(linear, x, other)).abs().max() > 0.1


def test_closed_forms_on_a_linear_model(linear: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, target = images
    weights = weights_of(linear, target)
    expected = {
        "linear": weights,
        "saliency": weights.abs(),
        "input_x_gradient": x * weights,
        "integrated_gradients": x * weights,
        "smoothgrad": weights,
    }
    for name, values in expected.items():
        torch.testing.assert_close(explainer(name)(linear, x, target), values, rtol=0, atol=1e-4)
    one_pixel = explainer("occlusion", window=1, stride=1)(linear, x, target)
    all_channels = (x * weights).sum(1, keepdim=True).expand_as(x)  # a window covers both channels
    torch.testing.assert_close(one_pixel, all_channels, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "input_x_gradient", "integrated_gradients"])
def test_on_a_linear_model_contributions_add_up_from_every_baseline(
    name: str, linear: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, target = images
    model = linear.double()
    for seed in range(5):
        baseline = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)).double().expand(x.shape)
        gap = completeness_gap(explainer(name), model, x.double(), target, baseline)
        assert gap.max() < 1e-10


def test_on_a_bent_model_only_integrated_gradients_add_up(smooth: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, target = images
    model, baseline = smooth.double(), torch.rand(x.shape, generator=torch.Generator().manual_seed(9)).double()
    gaps = {
        name: completeness_gap(explainer(name), model, x.double(), target, baseline).mean().item()
        for name in choices("explainer")
        if name != "linear"
    }
    assert gaps.pop("integrated_gradients") < 1e-8
    assert min(gaps.values()) > 1e-3


class Cubes(nn.Module):
    """Logits (Σ x³, −Σ x³): gradient 3x² and integral of it known."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).pow(3).sum(1)
        return torch.stack([total, -total], 1)


def test_integrals_of_cubes(images: tuple[Tensor, Tensor]) -> None:
    x, target = images[0], torch.zeros(8, dtype=torch.long)
    method = IntegratedGradients(baseline=0.25, steps=2)  # two points of Gauss integrate a parabola exactly
    torch.testing.assert_close(method(Cubes(), x, target), x**3 - 0.25**3)
    torch.testing.assert_close(method(Cubes(), x, target + 1), 0.25**3 - x**3)


def test_noise_of_smoothgrad_is_a_share_of_the_range_and_averages_out() -> None:
    x = torch.linspace(0.2, 0.6, 84).view(1, *SHAPE)  # a range of 0.4: σ is 0.5 · 0.4 = 0.2
    torch.manual_seed(0)
    found = SmoothGrad(samples=4000, noise=0.5)(Cubes(), x, torch.tensor([0]))
    torch.testing.assert_close(found, 3 * (x**2 + 0.2**2), rtol=0, atol=0.08)  # E 3(x + n)²
    assert (found - 3 * x**2).mean() == pytest.approx(3 * 0.2**2, abs=0.01)
    assert torch.equal(SmoothGrad(samples=1, noise=0.0)(Cubes(), x, torch.tensor([0])), 3 * x**2)


def test_windows_cover_everything_and_are_averaged() -> None:
    method = Occlusion(window=3, stride=2, baseline=0.0)
    assert [list(method.places(side)) for side in (3, 4, 7)] == [[0], [0, 2], [0, 2, 4]]
    x = torch.ones(1, 1, 3, 5)
    sums = nn.Sequential(nn.Flatten(), nn.Linear(15, 2))
    nn.init.ones_(sums[1].weight)
    # two windows of 3×3, at columns 0 and 2, each worth 9; column 2 lies in both
    assert torch.allclose(method(sums, x, torch.tensor([0])), torch.full_like(x, 9.0))
    x[..., 3:] = 0  # the second window is worth 3 now, and column 2 the mean of both
    expected = torch.tensor([9.0, 9.0, 6.0, 3.0, 3.0]).expand(1, 1, 3, 5)
    assert torch.allclose(method(sums, x, torch.tensor([0])), expected)


def test_linear_weights_serve_linear_models_only(
    linear: nn.Module, smooth: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    method = explainer("linear")
    method.check(linear, SHAPE)
    with pytest.raises(Unsuitable, match="needs a linear model"):
        method.check(smooth, SHAPE)
    with pytest.raises(Unsuitable, match="needs a linear model"):
        method(smooth, *images)


def test_a_window_larger_than_the_image_is_refused(linear: nn.Module) -> None:
    explainer("occlusion", window=6).check(linear, SHAPE)
    with pytest.raises(ValueError, match=r"window: must be at most 6 .*, got 7"):
        explainer("occlusion", window=7).check(linear, SHAPE)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("integrated_gradients", {"steps": 0}, "steps: must be at least 1"),
        ("integrated_gradients", {"baseline": 2}, r"baseline: must be between 0 and 1"),
        ("smoothgrad", {"samples": 0}, "samples: must be at least 1"),
        ("smoothgrad", {"noise": -0.1}, "noise: must be at least 0"),
        ("occlusion", {"window": 0}, "window: must be at least 1"),
        ("occlusion", {"stride": 4}, "stride: must be between 1 and the window of 3"),
        ("occlusion", {"baseline": -1}, r"baseline: must be between 0 and 1"),
    ],
)
def test_wrong_values_are_named(name: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=f"explainer.{name}.{words}"):
        explainer(name, **changes)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_captum_says_the_same(smooth: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    attr = pytest.importorskip("captum.attr")
    x, target = images
    asked = x.clone().requires_grad_()
    grey = torch.full_like(x, 0.25)
    peers = {
        ("saliency", ()): attr.Saliency(smooth).attribute(asked, target=target),
        ("input_x_gradient", ()): attr.InputXGradient(smooth).attribute(asked, target=target),
        ("integrated_gradients", (("steps", 50),)): attr.IntegratedGradients(smooth).attribute(x, target=target),
        ("integrated_gradients", (("steps", 7), ("baseline", 0.25))): attr.IntegratedGradients(smooth).attribute(
            x, baselines=grey, target=target, n_steps=7
        ),
        ("occlusion", (("window", 3), ("stride", 2), ("baseline", 0.25))): attr.Occlusion(smooth).attribute(
            x, sliding_window_shapes=(2, 3, 3), strides=(2, 2, 2), baselines=grey, target=target
        ),
    }
    for (name, changes), theirs in peers.items():
        ours = explainer(name, **dict(changes))(smooth, x, target)
        torch.testing.assert_close(ours, theirs.detach().float(), rtol=0, atol=1e-6)
        assert ours.abs().max() > 0.01


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_smoothgrad_is_captum_s_up_to_the_noise(smooth: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    attr = pytest.importorskip("captum.attr")
    x, target = images[0][:1], images[1][:1]
    deviation = 0.3 * (x.max() - x.min()).item()
    torch.manual_seed(0)
    tunnel = attr.NoiseTunnel(attr.Saliency(smooth))
    theirs = tunnel.attribute(x, nt_samples=2000, stdevs=deviation, target=target, abs=False)
    ours = SmoothGrad(samples=2000, noise=0.3)(smooth, x, target)
    plain = SmoothGrad(samples=1, noise=0.0)(smooth, x, target)
    assert (ours - theirs).abs().max() < 0.2 * (ours - plain).abs().max()
