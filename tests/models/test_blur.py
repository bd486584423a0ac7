"""The anti-aliasing filter by hand, and that networks with it answer shifted images more alike."""

import pytest
import torch
from torch import nn

from tests.configs import choice
from trustml_cli.config.instantiate import build
from trustml_cli.models.blur import BlurPool
from trustml_cli.models.model import InputSpec
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded


def test_the_filter_is_the_binomial_one_and_keeps_every_second_pixel() -> None:
    x = torch.zeros(1, 2, 5, 5)
    x[0, 1, 2, 2] = 16
    found = BlurPool(2)(x)
    assert found.shape == (1, 2, 3, 3)
    assert found[0, 0].eq(0).all()
    assert found[0, 1].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 1] = 16
    assert BlurPool(1)(x)[0, 0].tolist() == [[1, 1], [1, 1]]
    torch.testing.assert_close(BlurPool(3)(torch.ones(1, 3, 1, 7)), torch.ones(1, 3, 1, 4))


@pytest.mark.parametrize(
    ("name", "filters", "steadier"), [("cifar_cnn", 3, 9), ("mnist_cnn", 4, 0.8), ("resnet18", 6, 9)]
)
def test_a_network_with_it_changes_its_logits_less_when_images_move_by_a_pixel(
    name: str, filters: int, steadier: float
) -> None:
    inputs = InputSpec((1, 16, 16), 10, (0.0,), (1.0,))
    random = torch.Generator().manual_seed(0)
    x = nn.functional.interpolate(torch.rand(4, 1, 9, 9, generator=random), size=18, mode="bilinear")
    changes, found = {}, {}
    for pooling in ("plain", "blur"):
        with seeded(0):
            network = build(choice("model", name, pooling=pooling), "model").build(inputs).eval()
        with torch.no_grad():
            here, there = (network(x[:, :, 1:17, left : left + 16].contiguous()) for left in (1, 2))
        changes[pooling] = float((here - there).norm() / (here - here.mean(0)).norm())
        found[pooling] = sum(isinstance(layer, BlurPool) for layer in network.modules())
    assert found == {"plain": 0, "blur": filters}
    assert changes["blur"] < steadier * changes["plain"]  # untrained, where nothing else subsamples


def test_odd_images_and_signs() -> None:
    inputs = InputSpec((1, 11, 9), 10, (0.0,), (1.0,))
    for name in ("cifar_cnn", "mnist_cnn"):
        network = build(choice("model", name, pooling="blur"), "model").build(inputs)
        assert network(torch.rand(2, 1, 11, 9)).shape == (2, 10)
    with pytest.raises(InputError, match=r"^model\.pooling: blur turns signs into values other"):
        build(choice("model", "mnist_cnn", pooling="blur", activation="sign"), "model")
    with pytest.raises(InputError, match=r"^model\.pooling: blur goes with random weights"):
        build(choice("model", "resnet18", pooling="blur", weights="imagenet"), "model")
