"""Leaving a class out, setting images aside, and bringing other images to a network's shape."""

import pytest
import torch

from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.data.image_file import resize_pixels
from trustml_cli.data.unseen import resize_like, split_validation, without_class


def numbered(labels: list[int], start: int = 0) -> InMemory:
    """Images that hold their own number in every pixel."""
    pixels = torch.arange(start, start + len(labels), dtype=torch.uint8)
    return InMemory(pixels.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone(), torch.tensor(labels))


@pytest.fixture
def data() -> Dataset:
    train, test = numbered([0, 1, 2, 1, 0, 2]), numbered([2, 1, 0, 1], start=100)
    return Dataset(train, test, ("ant", "bee", "cat"), "three", "made up")


def content(split: InMemory) -> list[tuple[int, int]]:
    (x, y), *_ = split.stream(torch.arange(len(split)), len(split))
    return list(zip(x[:, 0, 0, 0].tolist(), y.tolist(), strict=True))


def test_without_a_class_the_others_move_up_and_its_test_images_are_the_unseen(data: Dataset) -> None:
    known, unseen = without_class(data, 1)
    assert known.classes == ("ant", "cat")
    assert content(known.train) == [(0, 0), (2, 1), (4, 0), (5, 1)]
    assert content(known.test) == [(100, 1), (102, 0)]
    assert content(unseen) == [(101, 1), (103, 1)]
    assert len({known.fingerprint, data.fingerprint, without_class(data, 0)[0].fingerprint}) == 3
    assert content(data.train) == [(0, 0), (1, 1), (2, 2), (3, 1), (4, 0), (5, 2)]  # the original is as it was


def test_images_set_aside_are_not_trained_on(data: Dataset) -> None:
    less, aside = split_validation(data, 1 / 3, seed=4)
    assert (len(less.train), len(aside)) == (4, 2)
    assert sorted(content(less.train) + content(aside)) == content(data.train)
    assert less.test is data.test
    assert less.fingerprint not in (data.fingerprint, split_validation(data, 1 / 3, seed=5)[0].fingerprint)
    assert content(split_validation(data, 1 / 3, seed=4)[1]) == content(aside)
    assert any(content(split_validation(data, 1 / 3, seed=seed)[1]) != content(aside) for seed in range(4))


def test_colours_become_grey_by_their_brightness_and_grey_becomes_all_channels() -> None:
    red_green_blue = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 2, 2)
    assert resize_pixels(red_green_blue, (1, 2, 2))[:, 0, 0, 0].tolist() == pytest.approx([0.299, 0.587, 0.114])
    grey = torch.tensor([[[[0.25, 0.5]]]])
    assert resize_pixels(grey, (3, 1, 2)).tolist() == [[[[0.25, 0.5]]] * 3]


def test_images_are_resized_without_aliasing() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(1, 1, 8, 4)
    assert resize_pixels(stripes, (1, 4, 4)).sub(0.5).abs().max() < 0.2  # one pixel in two is not simply dropped
    flat = torch.full((1, 1, 5, 5), 0.6)
    torch.testing.assert_close(resize_pixels(flat, (1, 8, 3)), torch.full((1, 1, 8, 3), 0.6))


def test_a_split_in_another_shape_keeps_its_order_and_stays_uint8(data: Dataset) -> None:
    split = resize_like(data.test, (3, 4, 4))
    assert split.shape == (3, 4, 4)
    assert split.inputs.dtype == torch.uint8
    assert content(split) == content(data.test)
