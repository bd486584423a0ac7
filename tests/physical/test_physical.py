"""Transformations against what is known of them, and what patches and stickers change."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice, choices
from tests.helpers import TrainedDigits
from trustml_cli.config.instantiate import build
from trustml_cli.physical.attack import PhysicalAttack
from trustml_cli.physical.patch import Patch
from trustml_cli.physical.sticker import Sticker, non_printability
from trustml_cli.physical.transformations import Pose, Ranges, lit, moved
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded

NAMES = choices("physical")
RANGES = Ranges(rotation=30, scale=0.3, place=0.5, brightness=0.4)


def disguise(name: str, **changes: Any) -> PhysicalAttack:
    built: PhysicalAttack = build(choice("physical", name, **changes), "physical")
    return built


def images(count: int = 4, height: int = 8, width: int = 8, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def view(x: Tensor, angle: float = 0.0, size: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    n, to = len(x), (x.shape[2], x.shape[3])
    return moved(
        x, torch.full((n,), angle), torch.full((n,), size), torch.tensor([shift]).expand(n, 2), to, border=False
    )


def eval_pose(count: int) -> Pose:
    return Ranges.nothing().draw(count, torch.device("cpu"))


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (7, 5)])
def test_nothing_leaves_an_image_as_it_is(shape: tuple[int, int]) -> None:
    torch.testing.assert_close(view(images(4, *shape)), images(4, *shape), atol=1e-6, rtol=0)


@pytest.mark.parametrize("quarter", [1, 2, -1])
def test_a_quarter_turn_is_torch_s(quarter: int) -> None:
    x = images(channels=3)
    torch.testing.assert_close(view(x, angle=90.0 * quarter), torch.rot90(x, quarter, (2, 3)), atol=1e-5, rtol=0)


def test_a_patch_that_is_wider_than_the_image_is_refused() -> None:
    assert disguise("patch", area=0.19).pattern_shape((1, 8, 32)) == (1, 8, 8)
    with pytest.raises(ValueError, match=r"^area: must be at most 0\.196 for images of 8×32, got 0\.3"):
        disguise("patch", area=0.3).pattern_shape((1, 8, 32))


def test_a_shift_is_to_the_right_and_down() -> None:
    x = images(height=6, width=10)
    expected = torch.zeros_like(x)
    expected[:, :, 1:, 2:] = x[:, :, :-1, :-2]
    torch.testing.assert_close(view(x, shift=(2.0, 1.0)), expected, atol=1e-5, rtol=0)


def test_a_half_sized_square_covers_a_quarter() -> None:
    assert view(torch.ones(1, 1, 8, 8), size=0.5).sum().item() == pytest.approx(16, abs=1e-4)


def test_it_agrees_with_torchvision_at_any_angle() -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import affine

    x = images(height=9, width=12)
    theirs = affine(x, -25.0, [2, -1], 1.3, [0.0], interpolation=InterpolationMode.BILINEAR)  # clockwise
    torch.testing.assert_close(view(x, 25.0, 1.3, (2.0, -1.0)), theirs, atol=1e-4, rtol=0)


def test_gradients_reach_the_image() -> None:
    x = images().requires_grad_()
    view(x, 10.0, 0.9, (0.5, 0.0)).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).double().mean() > 0.9


def test_poses_fill_their_ranges_and_one_alone_leaves_the_rest() -> None:
    with seeded(0):
        pose = RANGES.draw(2000, torch.device("cpu"))
        turned = RANGES.only("rotation").draw(10, torch.device("cpu"))
    for values, low, high in (
        (pose.angle, -30, 30), (pose.size, 0.7, 1.3), (pose.place, -0.5, 0.5), (pose.brightness, 0.6, 1.4)
    ):  # fmt: skip
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() > high - 0.05 * (high - low)
    assert turned.angle.abs().max() > 1
    assert (turned.size == 1).all()
    assert (turned.place == 0).all()
    assert (lit(images(10), turned) == images(10)).all()


def test_brightness_is_a_factor_up_to_white() -> None:
    still = torch.zeros(2)
    pose = Pose(still, still + 1, torch.zeros(2, 2), torch.tensor([0.5, 1.5]))
    x = torch.tensor([0.2, 0.4, 1.0]).expand(2, 1, 1, 3)
    torch.testing.assert_close(lit(x, pose).flatten(1), torch.tensor([[0.1, 0.2, 0.5], [0.3, 0.6, 1.0]]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20)])
def test_eval_pose_nothing_changes_but_what_is_covered(name: str, shape: tuple[int, int, int]) -> None:
    x, one = images(5, *shape[1:], shape[0]), disguise(name)
    pattern = torch.full(one.pattern_shape(shape), 2.0)  # no pixel is that bright, so that all it covers shows
    worn = one.apply(x, pattern - 1.0, eval_pose(5))
    covered = (worn > 1 - 1e-6).all(1, keepdim=True)  # but for the rounding of the interpolation
    assert torch.equal(worn[~covered.expand_as(x)], one.apply(x, None, eval_pose(5))[~covered.expand_as(x)])
    torch.testing.assert_close(one.apply(x, None, eval_pose(5)), x, atol=1e-5, rtol=0)
    assert 0.03 < covered.double().mean() < 0.5
    assert (covered == covered[:1]).all()  # the same place on every image


@pytest.mark.parametrize("area", [0.1, 0.3])
def test_a_patch_covers_its_area_wherever_it_lies_and_is_never_cut(area: float) -> None:
    patch = disguise("patch", area=area, scale=0.0)
    x = torch.zeros(300, 1, 28, 28)
    with seeded(0):
        worn = patch.apply(
            x, torch.ones(patch.pattern_shape((1, 28, 28))), patch.ranges.only("place").draw(300, x.device)
        )
    share = worn.flatten(1).mean(1)
    assert (share - area).abs().max() < 0.03
    places = worn.sum(0)[0] > 0
    assert places[0].any() and places[-1].any() and places[:, 0].any() and places[:, -1].any()  # noqa: PT018


@pytest.mark.parametrize("name", NAMES)
def test_it_fools_far_more_than_noise_in_its_place(name: str, trained_digits: TrainedDigits) -> None:
    model, x, y = trained_digits
    one = disguise(
        name, target=8, steps=150, rotation=10.0, **({"area": 0.4, "place": 0.3} if name == "patch" else {"bar": 0.25})
    )
    others = x[y != 8]
    with seeded(0):
        pattern = one.learn(model, others[:50])
        noise = one.finished(torch.rand_like(pattern))
        pose = one.ranges.draw(len(others[50:]), x.device)
    rate, control = (
        (model(one.apply(others[50:], put, pose)).argmax(1) == 8).double().mean().item() for put in (pattern, noise)
    )
    assert rate > control + 0.3, (rate, control)
    assert pattern.min() >= 0
    assert pattern.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_it_is_learnt_in_poses_of_all_its_ranges(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, shown = disguise(name, steps=5), []

    def watched(self: PhysicalAttack, x: Tensor, pattern: Tensor | None, pose: Pose) -> Tensor:
        shown.append(pose)
        return worn(self, x, pattern, pose)

    worn = type(one).apply
    monkeypatch.setattr(type(one), "apply", watched)
    with seeded(0):
        one.learn(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).requires_grad_(False), images(20))
    assert len(shown) >= 5
    for field in ("angle", "size", "place", "brightness"):
        assert torch.cat([getattr(pose, field) for pose in shown]).std() > 0.03, field


class Bright(nn.Module):
    """Class 1 for bright images, class 2 never."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.4 - mean, mean - 0.4, mean - 3], 1) * 20


def test_the_easiest_class_and_the_best_of_several_starts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = 0.5 * images(20), torch.arange(20) % 3
    patch = disguise("patch", target=None, steps=40, area=0.5, restarts=2)
    with seeded(0):
        tried: list[None] = []
    rates = patch.success_rates(Bright(), x, y, 3, lambda: tried.append(None))
    assert len(tried) == 3
    assert len(rates) == 3
    assert rates[1] > 0.8
    assert rates[2] == 0
    trained = iter([torch.zeros(1, 6, 6), torch.ones(1, 6, 6)])
    monkeypatch.setattr(type(patch), "attempt", lambda *_: next(trained))
    assert replace(patch, target=1).learn(Bright(), x).min() == 1


def test_every_step_of_every_start_is_told() -> None:
    told: list[None] = []
    patch = disguise("patch", target=1, steps=3, area=0.5, restarts=2)
    patch.learn(Bright(), 0.5 * images(20), lambda: told.append(None))
    assert len(told) == 6


def test_the_learning_rate_falls_along_a_cosine() -> None:
    patch = disguise("patch", target=1, steps=5, lr=0.02, area=0.3, rotation=0.0, scale=0.0, place=0.0)
    with seeded(0):
        start = 0.5 + 0.1 * torch.randn(patch.pattern_shape((1, 8, 8)))
    with seeded(0):
        end = patch.attempt(Bright(), images(20))
    # steps of Adam along a gradient of one sign are as long as the rate: 0.02 · (1 + 0.905 + 0.655 + 0.345 + 0.095)
    moved_by = (end - start)[:, 1:-1, 1:-1].median().item()
    assert moved_by == pytest.approx(0.06, rel=0.1)


def test_a_sticker_is_printed_in_the_levels_there_are() -> None:
    sticker = disguise("sticker")
    assert isinstance(sticker, Sticker)
    printed = sticker.finished(torch.tensor([0.0, 0.2, 0.3, 0.6, 0.9]))
    torch.testing.assert_close(printed, torch.tensor([0.05, 0.05, 0.5, 0.5, 0.95]))
    assert non_printability(printed, torch.ones(5), sticker.printable) == 0
    by_hand = 0.05 * 0.4 * 0.85  # 0.1 between the levels
    assert non_printability(torch.tensor([0.1]), torch.ones(1), sticker.printable).item() == pytest.approx(by_hand)


def test_a_mask_may_come_from_a_picture(tmp_path: Any) -> None:
    from PIL import Image

    picture = Image.new("L", (8, 8))
    picture.putpixel((6, 1), 255)
    picture.save(tmp_path / "mask.png")
    sticker = disguise("sticker", mask=str(tmp_path / "mask.png"))
    assert sticker.where((1, 8, 8)).nonzero().tolist() == [[0, 1, 6]]
    picture.putalpha(picture.copy())  # the mask as opacity, whatever its colour hides elsewhere
    picture.save(tmp_path / "mask.png")
    assert disguise("sticker", mask=str(tmp_path / "mask.png")).where((1, 8, 8)).nonzero().tolist() == [[0, 1, 6]]
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match="mask: is black everywhere"):
        disguise("sticker", mask=str(tmp_path / "black.png")).pattern_shape((1, 8, 8))


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("patch", "area", 0.0, "area: must be above 0"),
        ("patch", "rotation", 200.0, "rotation: must be between 0 and 180"),
        ("patch", "scale", 1.0, "scale: must be between"), ("patch", "lr", 0.0, "lr: must be above 0"),
        ("patch", "steps", 0, "steps: must be at least 1"), ("patch", "restarts", 0, "restarts: must be at least 1"),
        ("sticker", "bar", 0.4, "bar: must be above 0"),
        ("sticker", "print_weight", -1.0, "print_weight: must be at least 0"),
        ("sticker", "printable", [2.0], "printable: must be levels"),
        ("sticker", "mask", "nowhere.png", "mask: nowhere.png cannot be read as an image"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(name: str, key: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=rf"^physical\.{words}"):
        disguise(name, **{key: value})


@pytest.mark.peers
@pytest.mark.parametrize("steps", [25, pytest.param(100, marks=pytest.mark.faults)])
def test_a_patch_fools_as_many_as_another_library_s(steps: int, trained_digits: TrainedDigits) -> None:
    import numpy as np
    from art.attacks.evasion import AdversarialPatchPyTorch
    from art.estimators.classification import PyTorchClassifier

    model, x, y = trained_digits
    others, to = x[y != 8], 8
    victim = PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu")
    theirs = AdversarialPatchPyTorch(
        victim, rotation_max=10.0, scale_min=0.65, scale_max=0.75, learning_rate=0.1, max_iter=steps, batch_size=50,
        patch_shape=(1, 8, 8), patch_type="circle", optimizer="Adam", targeted=True, verbose=False,
    )  # fmt: skip
    np.random.seed(0)
    with seeded(0):
        theirs.generate(others[:50].numpy(), np.full(50, to))
        shown = theirs.apply_patch(others[50:].numpy(), scale=0.7)
        patch = disguise("patch", target=to, area=0.385, steps=steps, lr=0.1, rotation=10.0, scale=0.1, brightness=0.0)
        assert isinstance(patch, Patch)
        pattern = patch.learn(model, others[:50])
        worn = patch.apply(others[50:], pattern, patch.ranges.draw(len(others[50:]), x.device))
    rates = [(model(torch.as_tensor(each)).argmax(1) == to).double().mean().item() for each in (worn, shown)]
    assert rates[0] > 0.4, rates
    assert rates[0] >= rates[1], rates
