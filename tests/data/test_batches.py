import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from trustml_cli.data.batches import Augmentation, SettledAugmentation, as_pixels, batches, random_crop, reflected
from trustml_cli.data.dataset import InMemory

CPU = torch.device("cpu")


def unlike_pixels(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Images whose pixels all differ and are not 0, so that a window says where it came from."""
    return torch.arange(1, 1 + count * channels * height * width).view(count, channels, height, width)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 5), channels=st.integers(1, 3), height=st.integers(1, 5), width=st.integers(1, 5),
       padding=st.integers(1, 4), seed=st.integers(0, 9))  # fmt: skip
def test_a_random_crop_is_a_window_of_the_zero_padded_image(count, channels, height, width, padding, seed):
    torch.manual_seed(seed)
    images = unlike_pixels(count, channels, height, width)
    for image, cropped in zip(images, random_crop(images, functional.pad(images, [padding] * 4)), strict=True):
        padded = functional.pad(image, [padding] * 4)
        offsets = range(2 * padding + 1)
        assert any(torch.equal(cropped, padded[:, d : d + height, r : r + width]) for d in offsets for r in offsets)


def test_each_image_is_cropped_at_a_place_of_its_own_and_every_place_occurs():
    torch.manual_seed(0)
    images = unlike_pixels(1, 1, 3, 3).expand(400, -1, -1, -1)
    cropped = random_crop(images, functional.pad(images, [1] * 4))
    _, counts = cropped.flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 9
    assert counts.min() > 400 / 9 / 2


def test_a_flip_leaves_or_mirrors_each_image_left_to_right():
    torch.manual_seed(0)
    images = unlike_pixels(200, 2, 2, 3)
    changed = Augmentation(flip=True, crop_padding=0)(images, torch.arange(200))
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(images, changed, strict=True)]
    left = [torch.equal(after, before) for before, after in zip(images, changed, strict=True)]
    assert [not m for m in mirrored] == left
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True, crop_padding=2), Augmentation(False, 0)])
def test_augmented_images_keep_shape_and_type(augmentation):
    torch.manual_seed(0)
    images = unlike_pixels(3, 1, 4, 4).to(torch.uint8)
    changed = augmentation(images, torch.arange(3))
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert torch.equal(changed, images) == (not augmentation.flip)


@pytest.mark.parametrize(("size", "padding"), [(5, 2), (3, 2), (2, 1), (32, 4)])
def test_a_reflected_row_is_that_of_torch(size, padding):
    row = torch.arange(size)
    expected = functional.pad(row[None, None].double(), [padding] * 2, mode="reflect")[0, 0].long()
    assert reflected(size, padding).tolist() == expected.tolist()


def test_a_row_shorter_than_its_padding_is_reflected_over_and_over():
    assert reflected(3, 5).tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    assert reflected(1, 2).tolist() == [0] * 5


def test_a_settled_augmentation_mirrors_the_images_that_it_names_wherever_they_come():
    images = unlike_pixels(4, 1, 2, 3)
    settled = SettledAugmentation(flip=True, crop_padding=0, mirrored=torch.tensor([True, False, False, True]))
    order = torch.tensor([2, 3, 0])
    assert torch.equal(settled(images[order], order), torch.stack([images[2], images[3].flip(-1), images[0].flip(-1)]))


def test_a_settled_augmentation_crops_a_window_of_the_reflected_image():
    torch.manual_seed(0)
    images = unlike_pixels(1, 2, 4, 3).expand(200, -1, -1, -1).to(torch.uint8)
    cropped = SettledAugmentation(False, 2, torch.zeros(200, dtype=torch.bool))(images, torch.arange(200))
    padded = functional.pad(images[0].double(), [2] * 4, mode="reflect").to(torch.uint8)
    there = {padded[:, d : d + 4, r : r + 3].numpy().tobytes() for d in range(5) for r in range(5)}
    assert {image.contiguous().numpy().tobytes() for image in cropped} == there


def test_pixels_are_bytes_divided_by_255():
    assert as_pixels(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])


@given(st.lists(st.integers(0, 255), min_size=1))
def test_pixels_lie_between_0_and_1_and_give_back_their_bytes(levels):
    pixels = as_pixels(torch.tensor(levels, dtype=torch.uint8))
    assert pixels.dtype == torch.float32
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert (pixels * 255).round().int().tolist() == levels


def test_features_that_are_no_images_are_taken_as_they_are():
    split = InMemory(torch.tensor([[-3.0, 700.0], [0.5, 2.0]], dtype=torch.float64), torch.tensor([1, 0]))
    ((inputs, labels),) = batches(split, 10, CPU)
    assert (inputs.dtype, inputs.tolist(), labels.tolist()) == (torch.float32, [[-3, 700], [0.5, 2]], [1, 0])


@pytest.mark.parametrize(
    ("order", "expected"),
    [(None, [[0, 1], [2, 3], [4]]), (torch.tensor([4, 4, 0]), [[4, 4], [0]])],
)
def test_batches_follow_the_order_and_the_last_may_be_smaller(order, expected):
    split = InMemory(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1), torch.arange(5))
    made = [((x * 255).round().int().flatten().tolist(), y.tolist()) for x, y in batches(split, 2, CPU, order)]
    assert made == [(numbers, numbers) for numbers in expected]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_images_have_the_memory_format_asked_for(memory_format):
    split = InMemory(unlike_pixels(4, 3, 5, 5).to(torch.uint8), torch.zeros(4))
    ((images, _),) = batches(split, 4, CPU, memory_format=memory_format)
    assert images.is_contiguous(memory_format=memory_format)
    assert torch.equal(images, split.inputs.float() / 255)


def test_batches_are_augmented_before_they_become_pixels():
    split = InMemory(torch.full((2, 1, 2, 2), 255, dtype=torch.uint8), torch.zeros(2))
    seen = []

    def blacken(images, indices):
        seen.append((images.dtype, indices.tolist()))
        return images * 0

    ((images, _),) = batches(split, 2, CPU, torch.tensor([1, 0]), augmentation=blacken)
    assert seen == [(torch.uint8, [1, 0])]
    assert not images.any()
