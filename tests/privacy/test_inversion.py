"""Model inversion: what is minimised, by hand and in closed form."""

import pytest
import torch
from torch import nn

from trustml_cli.privacy.inversion import Hint, blurred, correlation, invert, moved, roughness, upper_half

SETTINGS = {"steps": 150, "lr": 0.05, "tv": 0.0, "shift": 0}


def linear() -> nn.Module:
    """Class 0 likes the left half of the image and class 1 the right one."""
    layer = nn.Linear(16, 2, bias=False)
    left = (torch.arange(16) % 4 < 2).float()
    layer.weight.data = torch.stack([left, 1 - left])
    return nn.Sequential(nn.Flatten(), layer).requires_grad_(False)


def test_each_start_ends_at_the_pattern_of_its_class() -> None:
    start = 0.5 * torch.ones(2, 1, 4, 4)
    found = invert(linear(), start, torch.tensor([0, 1]), **SETTINGS)  # type: ignore[arg-type]
    left = (torch.arange(16) % 4 < 2).float().view(4, 4)
    torch.testing.assert_close(found, torch.stack([left, 1 - left])[:, None])
    assert start.eq(0.5).all()


def test_total_variation_is_smoothed_away() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]])
    assert roughness(image).item() == pytest.approx((0 + 0.5) / 2 + (1 + 0.5) / 2)
    random = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    flat = invert(None, random, torch.zeros(3).long(), **{**SETTINGS, "tv": 1.0})  # type: ignore[arg-type]
    assert (roughness(flat) < 0.1 * roughness(random)).all()


def test_what_is_given_is_kept_and_the_network_fills_in_the_rest() -> None:
    truth = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    hint = Hint(upper_half, upper_half(truth), 1e4)
    start = torch.full_like(truth, 0.5)
    found = invert(linear(), start, torch.tensor([0, 1]), hint=hint, **SETTINGS)  # type: ignore[arg-type]
    torch.testing.assert_close(found[:, :, :2], truth[:, :, :2], atol=0.02, rtol=0)
    assert found[0, 0, 2:, :2].min() > 0.95
    assert found[1, 0, 2:, :2].max() < 0.05
    alone = invert(None, start, torch.tensor([0, 1]), hint=hint, **SETTINGS)  # type: ignore[arg-type]
    assert alone[:, :, 2:].eq(0.5).all()


def test_a_blur_is_a_gaussian_s_and_keeps_flat_images() -> None:
    from scipy.ndimage import gaussian_filter

    x = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0)).double()
    theirs = gaussian_filter(x.numpy(), (0, 0, 1.3, 1.3), mode="nearest", radius=4)
    torch.testing.assert_close(blurred(x, 1.3), torch.from_numpy(theirs))
    torch.testing.assert_close(blurred(torch.ones(1, 1, 5, 5), 2.0), torch.ones(1, 1, 5, 5))


def test_the_network_sees_images_shifted_and_correlations_ignore_contrast() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    torch.manual_seed(0)
    seen = {tuple(moved(x, 1).flatten().tolist()) for _ in range(100)}
    assert len(seen) == 9
    assert tuple(x.flatten().tolist()) in seen
    assert moved(x, 0) is x
    found = correlation(x, torch.cat([0.1 * x + 3, -x, torch.ones_like(x)]))
    assert found[0].tolist() == pytest.approx([1, -1, 0], abs=1e-5)
