from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import NO_CACHE
from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.system.errors import InputError


def numbered(count: int) -> InMemory:
    """Example number i holds the value i and has the label i % 3."""
    return InMemory(torch.arange(count).view(count, 1), torch.arange(count) % 3)


def a_dataset(train: int, test: int, classes: tuple[str, ...] = ("cat", "dog", "owl")) -> Dataset:
    return Dataset(numbered(train), numbered(test), classes, fingerprint="abc", source="made up")


def values(split: InMemory) -> list[int]:
    return split.inputs[:, 0].tolist()


def test_a_split_streams_batches_in_the_order_asked_for():
    streamed = [(x[:, 0].tolist(), y.tolist()) for x, y in numbered(6).stream(torch.tensor([5, 0, 3, 3, 1]), 2)]
    assert streamed == [([5, 0], [2, 0]), ([3, 3], [0, 0]), ([1], [1])]


def test_a_subset_keeps_examples_and_labels_together():
    part = numbered(6).subset(torch.tensor([4, 2]))
    assert (values(part), part.labels.tolist(), part.shape) == ([4, 2], [1, 2], (1,))


def test_labels_are_int64_whatever_they_came_as():
    assert InMemory(torch.zeros(2, 1), torch.tensor([1, 0], dtype=torch.uint8)).labels.dtype == torch.int64


@pytest.mark.parametrize(("count", "fraction", "held_out"), [(10, 0.3, 3), (10, 0.001, 1), (8, 0.5, 4)])
def test_divide_holds_out_a_random_fraction(count, fraction, held_out):
    kept, held = numbered(count).divide(fraction, seed=1)
    assert len(held) == held_out
    assert sorted(values(kept) + values(held)) == list(range(count))
    assert values(numbered(count).divide(fraction, seed=1)[1]) == values(held)


def test_another_seed_divides_otherwise():
    assert len({tuple(values(numbered(50).divide(0.2, seed)[1])) for seed in range(5)}) == 5


@given(train=st.integers(0, 40), test=st.integers(0, 40), limit=st.integers(1, 50))
def test_limited_keeps_at_most_so_many_always_the_same_in_their_order(train, test, limit):
    once, again = (a_dataset(train, test).limited(limit) for _ in range(2))
    for split, before, other in ((once.train, train, again.train), (once.test, test, again.test)):
        kept = values(split)
        assert len(kept) == min(before, limit)
        assert kept == sorted(set(kept)) == values(other)
        assert split.labels.tolist() == [value % 3 for value in kept]


def test_limited_draws_from_everywhere_and_changes_the_fingerprint():
    data = a_dataset(300, 300)
    assert max(values(data.limited(30).train)) > 200
    assert len({data.fingerprint, data.limited(30).fingerprint, data.limited(31).fingerprint}) == 3


@pytest.mark.parametrize(("name", "number"), [("cat", 0), ("owl", 2), (1, 1)])
def test_a_class_goes_by_name_or_number(name, number):
    assert a_dataset(3, 3).class_number(name) == number


@pytest.mark.parametrize("name", ["cow", 3, -1, "1"])
def test_an_unknown_class_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=rf"no class {name!r}; there are cat, dog, owl \(0 to 2\)"):
        a_dataset(3, 3).class_number(name)


@dataclass(frozen=True, kw_only=True)
class MadeUp(DatasetSource):
    classes: tuple[str, ...] = ("cat", "dog", "owl")

    def read(self, cache_dir: Path) -> Dataset:
        return a_dataset(9, 5, self.classes)


@pytest.mark.parametrize(("limit", "sizes"), [(None, (9, 5)), (7, (7, 5)), (2, (2, 2))])
def test_load_applies_the_limit_to_what_was_read(limit, sizes):
    data = MadeUp(limit=limit).load(NO_CACHE)
    assert (len(data.train), len(data.test)) == sizes


def test_a_data_set_of_one_class_is_refused():
    with pytest.raises(InputError, match=r"made up has one class only \(cat\); two or more are needed"):
        MadeUp(limit=None, classes=("cat",)).load(NO_CACHE)


def test_a_name_goes_before_a_number():
    assert replace(a_dataset(3, 3), classes=("2", "0", "1")).class_number(2) == 0


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], []])
def test_labels_that_no_class_has_are_refused(labels):
    @dataclass(frozen=True, kw_only=True)
    class Wrong(DatasetSource):
        def read(self, cache_dir):
            wrong = InMemory(torch.zeros(len(labels), 1), torch.tensor(labels, dtype=torch.int64))
            return replace(a_dataset(3, 3), test=wrong)

    with pytest.raises(InputError, match="labels must be 0 to 2"):
        Wrong(limit=None).load(NO_CACHE)
