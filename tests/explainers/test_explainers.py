"""Every explainer in conf/explainer on linear and other models, against closed forms and captum."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.config.instantiate import build
from trustml_cli.explainers.explainer import Explainer, Unsuitable
from trustml_cli.explainers.grad_cam import GradCam
from trustml_cli.explainers.gradient_shap import GradientShap
from trustml_cli.explainers.integrated_gradients import IntegratedGradients
from trustml_cli.explainers.measure import completeness_gap
from trustml_cli.explainers.occlusion import Occlusion
from trustml_cli.explainers.smoothgrad import SmoothGrad
from trustml_cli.models.model import Normalize
from trustml_cli.system.errors import InputError

SHAPE, CLASSES = (2, 7, 6), 4
FOR_IMAGES = [name for name in choices("explainer") if name != "kernel_shap"]


def explainer(name: str, **changes: object) -> Explainer:
    node = choice("explainer", name, **changes)
    built: Explainer = build(node, f"explainer.{name}")
    return built.fit(torch.rand(built.learns_from, *SHAPE, generator=torch.Generator().manual_seed(5)))


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


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_attributions_have_the_shape_of_the_image_and_depend_on_it_alone(
    name: str, linear: nn.Module, smooth: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, target = images
    method, model = explainer(name), smooth if name == "grad_cam" else linear
    torch.manual_seed(3)
    together = method(model, x, target)
    assert together.shape == x.shape
    assert not together.requires_grad
    assert together.abs().max() > 0.001
    torch.manual_seed(3)
    alone = method(model, x[:1], target[:1])
    torch.testing.assert_close(alone, together[:1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_the_class_that_is_asked_for_is_explained(
    name: str, linear: nn.Module, smooth: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    (x, target), model = images, smooth if name == "grad_cam" else linear
    other = (target + 1) % CLASSES
    assert (explainer(name)(model, x, target) - explainer(name)(model, x, other)).abs().max() > 0.001


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
        for name in FOR_IMAGES
        if name not in ("linear", "grad_cam", "gradient_shap")
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


def test_grad_cam_by_hand() -> None:
    # two feature maps, the pixel and its double, whose mean gradients are 1/4 · (3 − 1) and 1/4 · (−1)
    conv, head = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(8, 2, bias=False)
    conv.weight.data = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    head.weight.data = torch.tensor([[3.0, -1, 0, 0, -1, 0, 0, 0], [0.0] * 8])
    model = nn.Sequential(conv, nn.ReLU(inplace=True), nn.Flatten(), head).requires_grad_(False)
    x = torch.tensor([[0.4, 0.1], [0.2, 1.0]]).view(1, 1, 2, 2)
    assert not GradCam(layer=None)(model, x, torch.tensor([0])).any()  # 0.5·x of the first map, −0.25·2·x of the second
    head.weight.data[0, 4] = 0
    torch.testing.assert_close(GradCam(layer="0")(model, x, torch.tensor([0])), 0.5 * x)
    assert torch.equal(model[0](x)[:, :1], x)  # the hook is gone, and nothing was changed in place


def test_grad_cam_needs_feature_maps(linear: nn.Module, smooth: nn.Module) -> None:
    explainer("grad_cam").check(smooth, SHAPE)
    explainer("grad_cam", layer="1").check(smooth, SHAPE)
    with pytest.raises(Unsuitable, match="needs a network with convolutions"):
        explainer("grad_cam").check(linear, SHAPE)
    for layer, words in {"7": "no layer '7'; there are 0", "2": "needs feature maps"}.items():
        with pytest.raises(ValueError, match=f"^layer: {words}"):
            explainer("grad_cam", layer=layer).check(smooth, SHAPE)


class Auxiliary(nn.Module):
    """Logits without a convolution, and auxiliary ones after one."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.side = nn.Linear(16, 3), nn.Conv2d(1, 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.side(x)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def test_grad_cam_needs_a_convolution_that_makes_the_logits() -> None:
    with pytest.raises(Unsuitable, match="needs a convolution that makes the logits"):
        explainer("grad_cam").check(Auxiliary(), (1, 4, 4))


def test_gradient_shap_averages_over_its_background(images: tuple[Tensor, Tensor]) -> None:
    x, target = images[0], torch.zeros(8, dtype=torch.long)
    background = torch.stack([torch.full(SHAPE, 0.2), torch.full(SHAPE, 0.6)])
    torch.manual_seed(0)
    found = GradientShap(samples=2000, references=2).fit(background)(Cubes(), x, target)
    torch.testing.assert_close(found, x**3 - (0.2**3 + 0.6**3) / 2, rtol=0, atol=0.05)


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
def test_grad_cam_and_one_draw_of_gradient_shap_are_captum_s(
    smooth: nn.Module, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    attr = pytest.importorskip("captum.attr")
    x, target = images
    coarse = attr.LayerGradCam(smooth, smooth[0]).attribute(x, target=target, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(coarse, SHAPE[1:], interpolate_mode="bilinear")
    torch.testing.assert_close(explainer("grad_cam")(smooth, x, target).sum(1, keepdim=True), theirs)
    assert theirs.max() > 0.001

    background = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(6))
    monkeypatch.setattr("numpy.random.uniform", lambda low, high, size: np.full(size, 0.3))
    theirs = attr.GradientShap(smooth).attribute(x, background, n_samples=1, stdevs=0.0, target=target)
    monkeypatch.setattr(torch, "rand", lambda size: torch.tensor(0.3))
    ours = GradientShap(samples=1, references=1).fit(background)(smooth, x, target)
    torch.testing.assert_close(ours, theirs.detach().float(), rtol=0, atol=1e-6)


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
