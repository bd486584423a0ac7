"""Common corruptions: closed forms, Pillow and colorsys, and what all of them keep."""

import colorsys
import warnings
from math import exp

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg

from tests.configs import choice, choices
from trustml_cli.config.instantiate import build
from trustml_cli.corruptions.blur import disk
from trustml_cli.corruptions.corruption import Corruption, motion_blurred, plasma, zoomed
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded

NAMES = choices("corruption")


def corruption(name: str, **changes: object) -> Corruption:
    return build(choice("corruption", name, **changes), "corruption")  # type: ignore[no-any-return]


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth random images."""
    coarse = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


@pytest.mark.parametrize("name", NAMES)
def test_every_corruption_changes_images_of_any_size_more_and_more(name: str) -> None:
    one = corruption(name)
    assert one.strengths == 5
    for shape in ((4, 3, 32, 32), (2, 1, 8, 8), (2, 3, 20, 28), (1, 2, 40, 33), (2, 3, 1, 1), (2, 1, 1, 8)):
        x = images(*shape)
        with seeded(1):
            results = [one(x, strength) for strength in (1, 5)]
        for found in results:
            assert found.shape == x.shape
            assert found.min() >= 0
            assert found.max() <= 1
        if shape[2] == 32:
            weak, strong = (float((found - x).abs().mean()) for found in results)
            assert 0 < weak < (0.2 if name == "elastic_transform" else strong) < 0.5
            with seeded(1):
                assert torch.equal(one(x, 1), results[0])
            assert not torch.equal(results[1][0], results[1][1])


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"])
def test_what_moves_or_averages_pixels_leaves_a_plain_image_as_it_is(name: str) -> None:
    x = torch.full((2, 3, 32, 32), 0.3)
    torch.testing.assert_close(corruption(name)(x, 5), x, rtol=0, atol=1e-5)


def test_noise_has_the_deviations_that_it_names() -> None:
    x = torch.full((4, 3, 64, 64), 0.5)
    assert float((corruption("gaussian_noise")(x, 3) - x).std()) == pytest.approx(0.08, rel=0.02)
    shot = corruption("shot_noise")(x, 5)
    assert float(shot.mean()) == pytest.approx(0.5, abs=0.003)
    assert float(shot.std()) == pytest.approx((0.5 / 50) ** 0.5, rel=0.02)
    found = corruption("impulse_noise")(x, 5)
    assert float((found != x).float().mean()) == pytest.approx(0.07, rel=0.1)
    assert float((found == 1).float().mean()) == pytest.approx(0.035, rel=0.15)
    assert sorted(set(found.flatten().tolist())) == [0, 0.5, 1]


def test_contrast_keeps_the_mean_of_each_channel() -> None:
    x = images(2, 3, 16, 16)
    found = corruption("contrast")(x, 4)
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(found.std((2, 3)), 0.3 * x.std((2, 3)))


def test_brightness_is_a_change_of_value_in_hsv() -> None:
    x = images(1, 3, 4, 4)
    x[0, :, 0, 0] = 0
    found = corruption("brightness")(x, 5)[0]
    for row in range(4):
        for column in range(4):
            hue, saturation, value = colorsys.rgb_to_hsv(*x[0, :, row, column].tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3))
            assert found[:, row, column].tolist() == pytest.approx(expected, abs=1e-6)


def as_pillow(x: Tensor) -> Image.Image:
    return Image.fromarray((255 * x).round().to(torch.uint8).permute(1, 2, 0).numpy())


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


@pytest.mark.parametrize("strength", [1, 3, 5])
def test_pixelate_is_pillow_s_and_jpeg_torchvision_s(strength: int) -> None:
    x = (255 * images(1, 3, 32, 32) + 20 * torch.rand(1, 3, 32, 32)).clamp(0, 255).round() / 255
    side = int(32 * [0.95, 0.9, 0.85, 0.75, 0.65][strength - 1])
    small = as_pillow(x[0]).resize((side, side), Image.Resampling.BOX)
    expected = from_pillow(small.resize((32, 32), Image.Resampling.BOX))
    torch.testing.assert_close(corruption("pixelate")(x, strength)[0], expected, rtol=0, atol=1 / 255)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        bytes_ = encode_jpeg((255 * x[0]).round().to(torch.uint8), [80, 65, 58, 50, 40][strength - 1])
        expected = decode_jpeg(bytes_) / 255
    found = corruption("jpeg_compression")(x, strength)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2 / 255)
    assert (found - x[0]).abs().max() > 10 / 255


def test_the_disk_of_one_pixel_is_a_cross_and_a_dot_is_softened() -> None:
    cross = disk(1, 0.01)
    assert cross.shape == (5, 5)
    assert cross[2].tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0])
    assert float(cross.sum()) == pytest.approx(1)
    side = exp(-1 / (2 * 0.4**2))
    total = (1 + 2 * side) ** 2
    assert disk(0.3, 0.4)[2, 1:4].tolist() == pytest.approx([side / total, 1 / total, side / total], abs=1e-6)


def test_lengths_grow_with_the_image() -> None:
    small, large = (images(1, 1, side, side) for side in (32, 96))
    changes = [float((corruption("defocus_blur")(x, 5) - x).abs().mean()) for x in (small, large)]
    assert changes[1] == pytest.approx(changes[0], rel=0.3)


def test_glass_blur_swaps_pixels_nearby() -> None:
    x = torch.rand(2, 1, 32, 32)
    found = corruption("glass_blur", sigma=[0.0], distance=[2], rounds=[2])(x, 1)
    torch.testing.assert_close(found.flatten(1).sort().values, x.flatten(1).sort().values)
    assert (found != x).float().mean() > 0.7
    ramp = torch.arange(32.0).expand(1, 1, 32, 32) / 32
    moved = (corruption("glass_blur", sigma=[0.0], distance=[1], rounds=[1])(ramp, 1) - ramp).abs() * 32
    assert moved.mean() < 2
    assert moved[..., 0].max() <= 1 or moved.median() <= 2


def test_motion_spreads_a_dot_along_its_angle() -> None:
    x = torch.zeros(2, 1, 9, 9)
    x[:, :, 4, 4] = 1
    found = motion_blurred(x, 2, 1.0, torch.tensor([0.0, 90.0]))
    weights = [exp(-(step**2) / 2) for step in range(5)]
    expected = [weight / sum(weights) for weight in weights]
    assert found[0, 0, 4].flip(0)[4:].tolist() == pytest.approx(expected, abs=1e-5)
    assert found[1, 0, :, 4].flip(0)[4:].tolist() == pytest.approx(expected, abs=1e-5)


def test_zoom_enlarges_around_the_middle() -> None:
    ramp = torch.arange(9.0).expand(1, 1, 9, 9)
    assert zoomed(ramp, 2)[0, 0, 0].tolist() == pytest.approx([4 + (place - 4) / 2 for place in range(9)], abs=1e-5)


def test_fog_and_frost_are_rougher_where_the_fractal_falls_slower() -> None:
    x = torch.zeros(8, 1, 33, 48)
    smooth, rough = (plasma(x, decay) for decay in (3.0, 1.2))
    for field in (smooth, rough):
        assert field.shape == x.shape
        torch.testing.assert_close(field.amin((1, 2, 3)), torch.zeros(8))
        torch.testing.assert_close(field.amax((1, 2, 3)), torch.ones(8))
    steps = [float(field.diff(dim=3).abs().mean()) for field in (smooth, rough)]
    assert steps[0] < 0.05 < steps[1]
    white = torch.ones(1, 1, 16, 16)
    assert float(corruption("fog")(white, 5).max()) == pytest.approx(1)


def test_a_list_of_another_length_is_named() -> None:
    with pytest.raises(InputError, match=r"^corruption\.softness: needs a value for each of 5 strengths, got 1"):
        corruption("defocus_blur", softness=[1.0])
    with pytest.raises(InputError, match=r"^corruption\.std: must be numbers of at least 0"):
        corruption("gaussian_noise", std=[-1.0])
    for name, changes in {"shot_noise": {"photons": [0.0]}, "fog": {"density": [1.0], "decay": [0.0]}}.items():
        with pytest.raises(InputError, match=r"must be numbers above 0, got \[0\.0\]"):
            corruption(name, **changes)
