"""What makes fast_cnn fast: whitened patches, convolutions that hand on, and how several views answer together."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.configs import choice
from trustml_cli.config.instantiate import build
from trustml_cli.models.fast_cnn import EPSILON, FastCnn, Whitening, nearly_identity, shift
from trustml_cli.models.model import DataDependentInit, InputSpec

MODEL: FastCnn = build(choice("model", "fast_cnn", width=8), "model")


def network(side: int = 16, **changes: int) -> nn.Sequential:
    torch.manual_seed(0)
    return replace(MODEL, **changes).build(InputSpec((3, side, side), 5, (0.5,) * 3, (0.25,) * 3))


@pytest.fixture
def images() -> Tensor:
    """Images whose neighbouring pixels and whose colours go together."""
    torch.manual_seed(0)
    rough = torch.randn(700, 3, 9, 9)
    return functional.avg_pool2d(rough, 2, stride=1) + rough[:, :1, :8, :8] / 4


def test_patches_are_white_after_looking(images: Tensor) -> None:
    layer = Whitening(3)
    before = layer(images)
    layer.initialize_from(images)
    answers = layer(images).transpose(0, 1).flatten(1).double()
    patches = functional.unfold(images, 2).transpose(0, 1).flatten(1).double()
    products = patches @ patches.T / patches.shape[1]
    squares = torch.linalg.eigvalsh(products)
    white = answers[:12] @ answers[:12].T / patches.shape[1]
    torch.testing.assert_close(white, (squares / (squares + EPSILON)).diag(), atol=1e-4, rtol=0)
    torch.testing.assert_close(answers[12:], -answers[:12])
    by_values = layer.weight[:12].flatten(1).double()
    torch.testing.assert_close(
        by_values.T @ by_values, torch.linalg.inv(products + EPSILON * torch.eye(12)), rtol=1e-3, atol=1e-3
    )
    raw = before.transpose(0, 1).flatten(1)[:12].double()
    torch.testing.assert_close(raw, patches, atol=1e-6, rtol=0)  # the values of each patch, until it has looked
    assert (raw @ raw.T / raw.shape[1] - torch.eye(12)).abs().max() > 0.2


def test_whitening_weights_are_kept_but_not_trained() -> None:
    built = network()
    assert isinstance(built[-1], DataDependentInit)
    assert "network.0.weight" in built.state_dict()
    assert "network.0.weight" not in dict(built.named_parameters())
    assert "network.0.bias" in dict(built.named_parameters())


def test_a_channel_that_never_changes_is_not_blown_up() -> None:
    layer = Whitening(1)
    layer.initialize_from(torch.zeros(4, 1, 8, 8))
    assert layer.weight.abs().max() <= EPSILON**-0.5


@pytest.mark.parametrize(("before", "after", "same"), [(4, 8, 4), (6, 6, 6), (8, 5, 5)])
def test_first_channels_are_handed_on_and_the_rest_is_random(before: int, after: int, same: int) -> None:
    x = torch.rand(2, before, 7, 7)
    answers = nearly_identity(before, after)(x)
    torch.testing.assert_close(answers[:, :same], x[:, :same])
    assert answers.shape[1] == after
    assert all(channel.std() > 0.01 for channel in answers[:, same:].unbind(1))


def test_batchnorm_shifts_but_does_not_scale() -> None:
    layer = shift(3)
    assert [key for key, _ in layer.named_parameters()] == ["bias"]
    answers = layer(5 * torch.randn(40, 3, 4, 4) + 2)
    torch.testing.assert_close(answers.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-4, atol=0)
    assert layer.running_mean is not None
    torch.testing.assert_close(layer.running_mean, 0.4 * 2 * torch.ones(3), rtol=0.5, atol=0)


def test_two_views_are_the_image_and_its_mirror_image() -> None:
    x = torch.rand(4, 3, 16, 16)
    one, two = network().eval(), network(views=2).eval()
    torch.testing.assert_close(two(x), (one(x) + one(x.flip(-1))) / 2)
    torch.testing.assert_close(two(x), two(x.flip(-1)))
    assert (one(x) - two(x)).abs().max() > 1e-4


def test_six_views_are_weighted_as_published() -> None:
    x = torch.rand(4, 3, 16, 16)
    one, six = network().eval(), network(views=6).eval()

    def moved(by: int) -> Tensor:
        rows = [abs(i - by) if i - by < 16 else 14 for i in range(16)]
        return x[:, :, rows][:, :, :, rows]

    views = [x, x.flip(-1), moved(1), moved(1).flip(-1), moved(-1), moved(-1).flip(-1)]
    shares = [1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8]
    torch.testing.assert_close(six(x), sum(share * one(view) for share, view in zip(shares, views, strict=True)))


def test_one_view_is_trained_whatever_is_answered() -> None:
    x = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(network(views=6).train()(x), network().train()(x))


@pytest.mark.faults
def test_the_gradient_of_the_maximum_is_finite_where_it_is_compiled_in_bf16() -> None:
    """`amax` after BatchNorm and GELU has a gradient of 0/0 there: on a GPU cifar_fast ended with a loss of nan."""
    from trustml_cli.models.fast_cnn import Largest

    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), shift(8), nn.GELU(), Largest(1 / 9))
    gradients = []
    for network in (layers, torch.compile(layers)):
        x = torch.rand(16, 8, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answers = network(x)
        answers.float().square().mean().backward()
        gradients.append(x.grad)
    # not equal: where two values are equal in bf16, either may be the maximum
    assert functional.cosine_similarity(*(gradient.flatten() for gradient in gradients), dim=0) > 0.95
