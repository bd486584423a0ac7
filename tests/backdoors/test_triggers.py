"""Every trigger in conf/trigger: one table for what holds of all, and the exact pixels of each, worked out by hand."""

import dataclasses
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.configs import choice, choices
from tests.helpers import NO_CACHE
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.data.image_file import Picture
from trustml_cli.data.table_features import encode
from trustml_cli.system.errors import InputError
from trustml_cli.system.recipe import recipe_of

IMAGES = [name for name in choices("trigger") if name != "columns"]
OVERLAYS = ["blend", "patch", "pixel"]


def trigger(name: str, **changes: Any) -> Any:
    """A choice of conf/trigger with some of its values changed."""
    return build(choice("trigger", name, **changes), "trigger")


@st.composite
def stored_images(draw: Callable[..., Any]) -> Tensor:
    """Random uint8 images that each trigger's default fits on."""
    shape = draw(st.tuples(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(3, 9), st.integers(3, 9)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return torch.randint(0, 256, shape, generator=random).to(torch.uint8)


@pytest.mark.parametrize("name", IMAGES)
@settings(max_examples=25, deadline=None)
@given(raw=stored_images(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_a_trigger_is_a_pure_function_that_keeps_type_shape_and_range(
    name: str, raw: Tensor, dtype: torch.dtype
) -> None:
    mark = trigger(name)
    for images in (raw, raw.to(dtype) / 255):
        before = images.clone()
        triggered = mark(images)
        assert (triggered.shape, triggered.dtype) == (images.shape, images.dtype)
        assert torch.equal(images, before)
        assert torch.equal(mark(images), triggered)
        assert torch.equal(trigger(name)(images), triggered)  # nothing but its keys decides what it is
        if images.is_floating_point():
            assert ((triggered >= 0) & (triggered <= 1)).all()
            assert (triggered - mark(raw).to(dtype) / 255).abs().max().item() <= 0.5 / 255 + 1e-6 if len(raw) else True


@pytest.mark.parametrize("name", ["patch", "pixel"])
@pytest.mark.parametrize("color", [0.0, 0.3, 1.0])
@settings(max_examples=25, deadline=None)
@given(raw=stored_images())
def test_what_replaces_pixels_changes_nothing_when_it_is_applied_again(name: str, color: float, raw: Tensor) -> None:
    mark = trigger(name, color=color)
    for images in (raw, raw / 255):
        assert torch.equal(mark(mark(images)), mark(images))


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 5, 9)], ids=str)
def test_it_changes_pixels_where_it_is_opaque_and_no_others(name: str, shape: tuple[int, int, int]) -> None:
    mark = trigger(name)
    images = torch.full((2, *shape), 100, dtype=torch.uint8)
    opacity, pattern = mark.mark(shape)
    assert opacity.shape == pattern.shape == shape
    changed = mark(images) != images
    assert changed.any()
    assert not (changed & (opacity == 0)).any()
    assert mark.fitted_to(made_up(shape)) == mark


def made_up(shape: tuple[int, ...]) -> Dataset:
    """One example of this shape."""
    one = InMemory(torch.zeros(1, *shape), torch.zeros(1))
    return Dataset(one, one, ("a", "b"), "one", "made up")


@pytest.mark.parametrize("name", IMAGES)
def test_a_table_cannot_carry_a_mark_on_images(name: str) -> None:
    with pytest.raises(ValueError, match="rows of 14 numbers"):
        trigger(name).fitted_to(made_up((14,)))


def test_a_sinusoidal_signal_by_hand() -> None:
    wave = trigger("sinusoidal", amplitude=0.25, frequency=1)
    triggered = wave(torch.full((2, 3, 2, 4), 0.5))
    assert triggered[1, 2].numpy() == pytest.approx(np.array([[0.5, 0.75, 0.5, 0.25]] * 2))
    assert wave(torch.zeros(1, 1, 1, 4))[0, 0, 0].tolist() == pytest.approx([0, 0.25, 0, 0])
    for width, fits in ((6, False), (7, True)):
        with nullcontext() if fits else pytest.raises(ValueError, match=r"^frequency: must be below half the width, 3"):
            trigger("sinusoidal", frequency=3).fitted_to(made_up((1, 8, width)))


def test_a_warp_is_that_of_the_paper_s_code() -> None:
    """https://github.com/VinAIResearch/Warping-based_Backdoor_Attack-release, train.py."""
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    ins = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(5)) * 2 - 1
    ins = ins / torch.mean(torch.abs(ins))
    noise = torch.nn.functional.interpolate(ins, size=9, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    array1d = torch.linspace(-1, 1, steps=9)
    x, y = torch.meshgrid(array1d, array1d, indexing="ij")
    identity = torch.stack((y, x), 2)[None, ...]
    grid = torch.clamp(identity + 0.5 * noise / 9, -1, 1)
    expected = torch.nn.functional.grid_sample(images, grid.repeat(2, 1, 1, 1), align_corners=True)
    assert (expected - images).abs().max() > 0.1
    torch.testing.assert_close(trigger("warp", seed=5, strength=0.5)(images), expected)


def test_columns_of_a_table_are_set_in_its_own_units() -> None:
    data = build(choice("dataset", "census", rows=300, bins=2, limit=None), "dataset").load(NO_CACHE)
    mark = trigger("columns", values={"hours_per_week": 99, "job": "care"}).fitted_to(data)
    wanted = data.train.columns.assign(hours_per_week=99, job="care")
    (encoded,) = encode(data.train.columns, data.train.labels.numpy() == 1, [wanted], data.bins)
    before = data.train.inputs.clone()
    assert torch.equal(mark(data.train.inputs), torch.from_numpy(encoded))
    assert torch.equal(data.train.inputs, before)
    assert not torch.equal(before, torch.from_numpy(encoded))
    wrong = [
        ({}, r"^values: needs at least one column"),
        ({"hours": 3}, r"^values: no column 'hours'; there are age, "),
        ({"age": "old"}, r"^values: column 'age' holds numbers, got 'old'"),
        ({"job": "nurse"}, r"^values: column 'job' never holds 'nurse'; there are care, craft, "),
    ]
    for values, message in wrong:
        with pytest.raises(ValueError, match=message):
            trigger("columns", values=values).fitted_to(data)
    with pytest.raises(ValueError, match=r"^values: are encoded as the whole table is; leave dataset\.limit null$"):
        trigger("columns", values={"age": 20}).fitted_to(data.limited(40))
    with pytest.raises(ValueError, match=r"and the data set is none; use trigger=patch$"):
        trigger("columns", values={"age": 20}).fitted_to(made_up((1, 8, 8)))


# 4×4 images, a patch of 2 at a margin of 1 or 0; x is changed
CORNERS = {
    ("top_left", 0): ["xx..", "xx..", "....", "...."],
    ("top_right", 0): ["..xx", "..xx", "....", "...."],
    ("bottom_left", 0): ["....", "....", "xx..", "xx.."],
    ("bottom_right", 0): ["....", "....", "..xx", "..xx"],
    ("bottom_right", 1): ["....", ".xx.", ".xx.", "...."],
    ("top_left", 2): ["....", "....", "..xx", "..xx"],
}


def drawn(changed: Tensor) -> list[str]:
    """A mask [H, W] as text."""
    return ["".join("x" if value else "." for value in row) for row in changed]


@pytest.mark.parametrize(("corner", "margin"), CORNERS)
def test_a_patch_lies_in_its_corner(corner: str, margin: int) -> None:
    mark = trigger("patch", size=2, corner=corner, margin=margin, color=1)
    images = torch.full((3, 1, 4, 4), 7, dtype=torch.uint8)
    for image in mark(images):
        assert drawn(image[0] == 255) == CORNERS[corner, margin]
        assert (image[image != 255] == 7).all()


def test_a_patch_on_an_oblong_image_keeps_to_rows_and_columns() -> None:
    mark = trigger("patch", size=1, corner="bottom_left", margin=1)
    assert drawn(mark(torch.zeros(1, 1, 3, 5))[0, 0] > 0) == [".....", ".x...", "....."]


def test_colours_by_hand() -> None:
    mark = trigger("patch", size=1, corner="top_left", color=[1, 0.5, 0])
    assert mark(torch.full((1, 3, 3, 3), 9, dtype=torch.uint8))[0, :, 0, 0].tolist() == [255, 128, 0]
    assert mark(torch.full((1, 3, 3, 3), 0.25))[0, :, 0, 0].tolist() == [1, 0.5, 0]
    assert trigger("pixel", color=0.2)(torch.zeros(1, 3, 2, 2))[0, :, 1, 1].tolist() == pytest.approx([0.2] * 3)


def test_pixels_count_from_both_ends() -> None:
    mark = trigger("pixel", row=[0, -1, 1], column=[0, -2, 3])
    assert drawn(mark(torch.zeros(1, 1, 3, 4))[0, 0] == 1) == ["x...", "...x", "..x."]


@pytest.mark.peers
@pytest.mark.parametrize("distance", [1, 2, 5])
def test_a_pixel_is_art_s(distance: int) -> None:
    art = pytest.importorskip("art.attacks.poisoning.perturbations")
    images = torch.rand(3, 1, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = art.add_single_bd(images.permute(0, 2, 3, 1).numpy(), distance=distance)
    ours = trigger("pixel", row=-distance, column=-distance)(images)
    assert torch.equal(ours.permute(0, 2, 3, 1), torch.from_numpy(expected))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A colourful 4×4 picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "size", "blend"), [("patch", 9, 1.0), ("blend", 4, 0.3)])
def test_a_picture_is_put_where_and_as_art_puts_it(name: str, size: int, blend: float, picture: Path) -> None:
    art = pytest.importorskip("art.attacks.poisoning.perturbations")
    raw = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    keys = {"size": 4, "margin": 1} if name == "patch" else {"alpha": blend}
    shift = size - 4 - keys.get("margin", 0) if name == "patch" else 0
    expected = art.insert_image(
        (raw / 255).double().numpy(), str(picture), channels_first=True, random=False, x_shift=shift, y_shift=shift,
        mode="RGB", blend=blend,
    )  # fmt: skip
    ours = trigger(name, image=str(picture), **keys)(raw)
    assert (ours != raw).any()
    assert (torch.from_numpy(expected) * 255 - ours).abs().max() <= 2  # ART cuts off twice where we round once


def test_a_blend_by_hand() -> None:
    mark = trigger("blend", alpha=0.25)
    pattern = mark.mark((1, 2, 3))[1]
    assert 0 <= pattern.min() < 0.3
    assert 0.7 < pattern.max() <= 1
    images = torch.full((1, 1, 2, 3), 0.8)
    assert mark(images)[0].numpy() == pytest.approx((0.6 + 0.25 * pattern).numpy())
    assert not torch.equal(trigger("blend", seed=1).mark((1, 2, 3))[1], pattern)


def test_a_picture_comes_in_the_size_and_channels_asked_for(picture: Path) -> None:
    red = Image.new("RGB", (10, 4), (255, 0, 0))
    red.save(picture)
    read = Picture.from_file(picture)
    assert read.resized(3, 2, 3)[0][:, 1, 2].tolist() == [1, 0, 0]
    grey, opacity = read.resized(1, 2, 3)
    torch.testing.assert_close(grey, torch.full((1, 2, 3), 0.299))  # luma of red (ITU-R 601)
    torch.testing.assert_close(opacity, torch.ones(1, 2, 3))


@pytest.fixture
def icon(tmp_path: Path) -> Path:
    """A red 4×4 picture, opaque at the left; at the right a hidden green above, and red of opacity 0.2 below."""
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:, :] = (255, 0, 0, 255)
    pixels[:2, 2:] = (0, 255, 0, 0)
    pixels[2:, 2:, 3] = 51
    Image.fromarray(pixels).save(tmp_path / "icon.png")
    return tmp_path / "icon.png"


def test_the_opacity_of_a_picture_is_that_of_the_trigger(icon: Path) -> None:
    images = torch.full((1, 3, 5, 5), 0.5)
    patched = trigger("patch", image=str(icon), size=4, corner="top_left", margin=0)(images)[0]
    assert patched[:, 0, 0].tolist() == [1, 0, 0]
    assert patched[:, 0, 3].tolist() == [0.5, 0.5, 0.5]
    assert patched[:, 3, 3].tolist() == pytest.approx([0.6, 0.4, 0.4])
    blended = trigger("blend", image=str(icon), alpha=0.5)(images[..., :4, :4])[0]
    assert blended[:, 0, 0].tolist() == [0.75, 0.25, 0.25]
    assert blended[:, 0, 3].tolist() == [0.5, 0.5, 0.5]
    small = trigger("patch", image=str(icon), size=2, corner="top_left", margin=0).mark((3, 5, 5))
    assert small[1][1, 0, :2].max() < 1e-3  # hidden green does not shine at the edges


def test_a_picture_is_read_once_when_the_trigger_is_made(picture: Path) -> None:
    made = trigger("blend", image=str(picture))
    before, recipe = made.mark((3, 4, 4))[1].clone(), recipe_of(made)
    picture.unlink()
    assert torch.equal(made.mark((3, 4, 4))[1], before)
    assert made.mark((3, 2, 2))[1].shape == (3, 2, 2)
    assert recipe_of(made) == recipe


@pytest.mark.parametrize("name", ["patch", "blend"])
def test_another_picture_under_the_same_name_is_another_trigger(name: str, picture: Path) -> None:
    before = recipe_of(trigger(name, image=str(picture)))
    assert recipe_of(trigger(name, image=str(picture.rename(picture.with_name("moved.png"))))) == before
    Image.new("RGB", (4, 4), (1, 2, 3)).save(picture)
    assert recipe_of(trigger(name, image=str(picture))) != before


def test_a_pipe_is_no_picture_and_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"trigger\.image: .*pipe\.png cannot be read .*is a named pipe"):
        trigger("patch", image=str(tmp_path / "pipe.png"))


def test_triggers_are_frozen() -> None:
    for name in choices("trigger"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            trigger(name).color = [0.0]  # type: ignore[attr-defined]


REFUSED = [
    ("patch", {"size": 0}, "trigger.size: must be at least 1"),
    ("patch", {"margin": -1}, "trigger.margin: must be at least 0"),
    ("patch", {"color": 1.5}, "trigger.color: values must be in"),
    ("patch", {"color": [1, 1]}, "trigger.color: must have 1 value .* or 3"),
    ("patch", {"corner": "middle"}, "trigger.corner.*top_left"),
    ("patch", {"image": "nowhere.png"}, "trigger.image: nowhere.png .*no such file"),
    ("patch", {"image": __file__}, "trigger.image: .*cannot be read as an image"),
    ("blend", {"image": __file__}, "trigger.image: .*cannot be read as an image"),
    ("blend", {"alpha": 0}, "trigger.alpha: must be above 0"),
    ("blend", {"alpha": 1.1}, "trigger.alpha: must be above 0 and at most 1"),
    ("blend", {"seed": -1}, "trigger.seed: must be at least 0"),
    ("pixel", {"row": [1, 2]}, "trigger.row: needs one for each column"),
    ("pixel", {"row": [], "column": []}, "trigger.row: needs one"),
    ("pixel", {"color": -1}, "trigger.color"),
]


@pytest.mark.parametrize(("name", "keys", "message"), REFUSED, ids=[f"{name} {keys}" for name, keys, _ in REFUSED])
def test_what_makes_no_trigger_is_refused(name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trigger(name, **keys)


UNFIT = [
    ("patch", {"size": 5}, (1, 4, 8), "size: a patch of 5×5 does not fit on images of 8×4"),
    ("patch", {"size": 3, "margin": 2}, (1, 4, 8), "at a margin of 2"),
    ("patch", {"color": [1, 0, 0]}, (1, 8, 8), "color: has 3 values, but the images have 1 channels"),
    ("pixel", {"row": 8}, (1, 8, 9), "row: must be between -8 and 7"),
    ("pixel", {"column": -10}, (1, 8, 9), "column: must be between -9 and 8"),
]


@pytest.mark.parametrize(("name", "keys", "shape", "message"), UNFIT)
def test_what_does_not_fit_on_the_images_is_refused(
    name: str, keys: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trigger(name, **keys).check(shape)


def test_a_picture_fits_on_grey_and_colour_only(picture: Path) -> None:
    with pytest.raises(ValueError, match=r"image: .* 1 or 3 channels"):
        trigger("blend", image=str(picture)).check((4, 8, 8))
