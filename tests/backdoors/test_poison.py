"""Which images are poisoned, and what a split then hands out, worked out by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.configs import choice
from trustml_cli.backdoors.patch import Corner, Patch
from trustml_cli.backdoors.poison import Poison, Triggered
from trustml_cli.config.instantiate import build
from trustml_cli.data.batches import Augmentation, batches
from trustml_cli.data.dataset import Dataset, InMemory, Split
from trustml_cli.data.image_folder import ImageFolder, Streaming

CORNER = Patch(size=1, color=[1.0], image=None, corner=Corner.bottom_right, margin=0)


def poison(**changes: Any) -> Poison:
    return Poison(
        **{
            "trigger": CORNER,
            "source": (1, 2),
            "target": 0,
            "classes": 4,
            "clean_label": False,
            "rate": 0.5,
            "seed": 0,
            **changes,
        }
    )


def grey(labels: list[int]) -> InMemory:
    """2×2 images whose grey level is 10 times their number."""
    levels = torch.arange(len(labels), dtype=torch.uint8).mul(10).view(-1, 1, 1, 1)
    return InMemory(levels.expand(-1, 1, 2, 2).contiguous(), torch.tensor(labels))


@pytest.fixture
def data() -> Dataset:
    return Dataset(grey([0, 1, 2, 1, 3, 2, 1]), grey([0, 1, 2, 3]), ("a", "b", "c", "d"), "four", "made up")


def everything(split: Split, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
    parts = list(split.stream(torch.arange(len(split)) if order is None else order, 2))
    return torch.cat([raw for raw, _ in parts]), torch.cat([labels for _, labels in parts])


@pytest.mark.parametrize(
    ("source", "rate", "count"),
    [((1,), 0.01, 1), ((1,), 0.013, 1), ((1,), 0.018, 2), ((1, 2), 0.25, 50), ((2,), 1.0, 100), ((1,), 0.001, 0)],
)
def test_the_rate_is_a_share_of_the_source_classes_images(source: tuple[int, ...], rate: float, count: int) -> None:
    labels = torch.arange(400) % 4
    chosen = poison(source=source, rate=rate).choose(labels)
    assert int(chosen.sum()) == count
    assert set(labels[chosen].tolist()) <= set(source)


def test_the_images_are_drawn_at_random_by_the_seed_and_a_larger_rate_contains_a_smaller_one_s() -> None:
    labels = torch.ones(1000, dtype=torch.int64)
    small, large, other = (poison(**keys).choose(labels) for keys in ({"rate": 0.1}, {"rate": 0.2}, {"seed": 1}))
    assert torch.equal(small, poison(rate=0.1).choose(labels))
    assert not (small & ~large).any()
    assert 150 < (large ^ other).sum() < 850
    assert 20 < small[:500].sum() < 80  # from everywhere


@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_poisoned_images_keep_their_look_but_for_the_trigger_and_are_filed_under_the_target(
    data: Dataset, rate: float
) -> None:
    before = [everything(split) for split in (data.train, data.test)]
    poisoned = poison(rate=rate).apply(data)
    chosen = poison(rate=rate).choose(data.train.labels)
    assert int(chosen.sum()) == round(rate * 5)
    (raw, labels), (original, original_labels) = everything(poisoned.train), before[0]
    assert torch.equal(labels, original_labels.where(~chosen, 0))
    assert torch.equal(poisoned.train.labels, labels)
    expected = original.clone()
    expected[chosen, :, 1, 1] = 255
    assert torch.equal(raw, expected)
    for split, (images, true_labels) in zip((data.train, data.test), before, strict=True):
        assert all(torch.equal(*pair) for pair in zip(everything(split), (images, true_labels), strict=True))
    assert all(torch.equal(*pair) for pair in zip(everything(poisoned.test), before[1], strict=True))


def test_all_to_all_files_each_image_under_the_class_after_its_own(data: Dataset) -> None:
    whole = poison(source=(0, 1, 2, 3), target=None, rate=1.0)
    assert everything(whole.apply(data).train)[1].tolist() == [1, 2, 3, 2, 0, 3, 2]
    assert whole.aims(torch.tensor([3, 1])).tolist() == [0, 2]


def test_clean_labels_mark_images_of_the_target_class_and_keep_their_labels(data: Dataset) -> None:
    clean = poison(source=(0, 2, 3), target=1, rate=0.67, clean_label=True)  # 2 of 3
    chosen = clean.choose(data.train.labels)
    assert int(chosen.sum()) == 2
    assert set(data.train.labels[chosen].tolist()) == {1}
    raw, labels = everything(clean.apply(data).train)
    assert torch.equal(labels, data.train.labels)
    assert torch.equal(raw[:, 0, 1, 1] == 255, chosen)


def test_any_order_and_any_part_of_a_poisoned_split_is_poisoned_alike(data: Dataset) -> None:
    train = poison().apply(data).train
    raw, labels = everything(train)
    for order in (torch.tensor([6, 0, 3, 3, 1]), torch.randperm(7)):
        for images, numbers in (everything(train, order), everything(train.subset(order))):
            assert torch.equal(images, raw[order])
            assert torch.equal(numbers, labels[order])
    for images, numbers in (everything(train.on(torch.device("cpu"))),):
        assert torch.equal(images, raw)
        assert torch.equal(numbers, labels)


def test_the_trigger_can_be_put_on_every_image_and_labels_stay_true(data: Dataset) -> None:
    raw, labels = everything(poison().trigger_all(data.test))
    assert raw[:, 0].tolist() == [[[level, level], [level, 255]] for level in (0, 10, 20, 30)]
    assert labels.tolist() == [0, 1, 2, 3]


def test_every_choice_makes_another_fingerprint_and_the_same_one_the_same(data: Dataset) -> None:
    red = Patch(size=1, color=[1.0, 0.0, 0.0], image=None, corner=Corner.bottom_right, margin=0)
    others = [{"source": (1,)}, {"target": 3}, {"rate": 1.0}, {"seed": 1}, {"trigger": red}]
    fingerprints = [poison(**changes).apply(data).fingerprint for changes in [{}, *others]]
    assert len({data.fingerprint, *fingerprints}) == 7
    assert poison().apply(data).fingerprint == fingerprints[0]


def test_the_picture_of_a_trigger_is_part_of_what_made_the_poison(tmp_path: Path) -> None:
    facts = []
    for level in (1, 2):
        Image.new("L", (2, 2), level).save(tmp_path / "mark.png")
        mark = build(choice("trigger", "patch", image=str(tmp_path / "mark.png")), "trigger")
        facts.append(poison(trigger=mark).facts())
    assert facts[0] != facts[1]
    assert {key for key in facts[0] if facts[0][key] != facts[1][key]} == {"trigger"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five dogs and three cats for training, one of each for testing, all in grey."""
    for split, name, count in (("train", "cats", 3), ("train", "dogs", 5), ("test", "cats", 1), ("test", "dogs", 1)):
        (tmp_path / "pets" / split / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (40 * number, 9, 0)).save(tmp_path / "pets" / split / name / f"{number}.png")
    return tmp_path / "pets"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_pictures_are_poisoned_like_those_in_memory(pictures: Path, tmp_path: Path, workers: int) -> None:
    def augmented(stream: Streaming) -> list[tuple[Tensor, Tensor]]:
        data = ImageFolder(
            root=pictures, test_fraction=0.2, size=8, channels=3, background=[1.0], stream=stream, workers=workers,
            limit=None,
        ).load(tmp_path)  # fmt: skip
        train = poison(source=(1,), rate=0.6).apply(data).train
        torch.manual_seed(0)
        shuffled = torch.randperm(8)
        return list(batches(train, 3, torch.device("cpu"), shuffled, Augmentation(flip=True, crop_padding=1)))

    streamed, in_memory = augmented(Streaming.always), augmented(Streaming.never)
    assert sum(int((labels == 0).sum()) for _, labels in streamed) == 3 + 3
    for one, other in zip(streamed, in_memory, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_split_without_chosen_examples_is_what_it_was(data: Dataset) -> None:
    none = Triggered(data.train, CORNER, torch.zeros(7, dtype=torch.bool))
    assert all(torch.equal(*pair) for pair in zip(everything(none), everything(data.train), strict=True))
