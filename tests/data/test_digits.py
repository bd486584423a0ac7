import pytest
import torch
from sklearn.datasets import load_digits

from trustml_cli.system.errors import InputError


def test_train_and_test_together_are_the_digits_of_scikit_learn_each_once(source):
    data = source("digits").load()
    bunch = load_digits()
    expected = sorted([*image, label] for image, label in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True))
    rows = []
    for split in (data.train, data.test):
        levels = (split.inputs.flatten(1).float() / 255 * 16).round()
        rows += [[*image, label] for image, label in zip(levels.tolist(), split.labels.tolist(), strict=True)]
    assert sorted(rows) == expected
    assert data.shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")


def test_grey_levels_span_the_whole_range(source):
    levels = source("digits").load().train.inputs.unique().tolist()
    assert levels == [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]


def test_a_quarter_of_each_class_is_held_out(source):
    data = source("digits", test_fraction=0.25).load()
    assert (len(data.train), len(data.test)) == (1347, 450)
    for number in range(10):
        held_out = int((data.test.labels == number).sum())
        assert abs(held_out - (held_out + int((data.train.labels == number).sum())) / 4) < 1


def test_the_same_images_are_held_out_every_time(source):
    first, second, other = (source("digits", test_fraction=f).load() for f in (0.25, 0.25, 0.5))
    assert torch.equal(first.test.inputs, second.test.inputs)
    assert first.fingerprint == second.fingerprint != other.fingerprint
    assert len(other.test) == 899


def test_limit_cuts_both_splits(source):
    data = source("digits", limit=30).load()
    assert (len(data.train), len(data.test)) == (30, 30)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("test_fraction", 0, "dataset.test_fraction: must be between 0.01 and 0.9, got 0"),
        ("test_fraction", 0.95, "dataset.test_fraction: must be between 0.01 and 0.9, got 0.95"),
        ("limit", 0, "dataset.limit: must be at least 1 .* got 0"),
    ],
)
def test_a_value_out_of_range_is_refused(source, key, value, words):
    with pytest.raises(InputError, match=words):
        source("digits", **{key: value})
