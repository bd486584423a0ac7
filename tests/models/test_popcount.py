"""Sums of signs in bits, against hand-worked ones and against convolutions of floats."""

import platform
from collections.abc import Iterator
from types import SimpleNamespace

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trustml_cli.models import popcount
from trustml_cli.models.packed import from_bits, in_bits
from trustml_cli.models.popcount import fire, fire_kernel, reach, sums


def signs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float() * 2 - 1


def as_bits(x: Tensor) -> Tensor:
    """±1 [N, C, H, W] as bits."""
    return reach(x.permute(0, 2, 3, 1), torch.zeros(x.shape[1]))


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_channel_c_is_bit_c_of_its_word_and_what_is_beyond_the_channels_is_0() -> None:
    x = -torch.ones(1, 66, 1, 1)
    x[0, [0, 2, 63, 65]] = 1
    assert as_bits(x).flatten().tolist() == [1 + 4 - 2**63, 2]
    assert torch.equal(from_bits(as_bits(x), 66), x)


def test_a_value_reaches_a_threshold_that_it_equals() -> None:
    values = torch.tensor([[-1.0, -0.0, 0.0, 1.0, 2.0]])[:, None, None]
    thresholds = torch.tensor([-1.0, 0.0, 0.0, 1.5, float("inf")])
    assert reach(values, thresholds).item() == 0b00111


def test_a_sum_is_how_many_agree_less_how_many_differ() -> None:
    x = torch.tensor([1.0, -1, 1, 1, -1]).view(1, 5, 1, 1)
    weight = torch.tensor([[1.0, 1, -1, 1, 1], [-1, 1, -1, -1, 1]]).view(2, 5, 1, 1)
    assert sums(as_bits(x), in_bits(weight), 2, 5, 1, 0).flatten().tolist() == [1 - 1 - 1 + 1 - 1, -5]


def test_padding_adds_nothing() -> None:
    x, weight = torch.ones(1, 1, 2, 3), torch.ones(1, 1, 3, 3)
    assert sums(as_bits(x), in_bits(weight), 1, 1, 1, 1)[0, :, :, 0].tolist() == [[4, 6, 4], [4, 6, 4]]
    assert sums(as_bits(-x), in_bits(weight), 1, 1, 2, 1)[0, :, :, 0].tolist() == [[-4, -4]]


def test_a_sum_fires_from_its_threshold_on() -> None:
    x, weight = torch.ones(1, 3, 1, 1), torch.ones(4, 3, 1, 1)
    weight[0] = -1
    thresholds = torch.full((1, 64), 99, dtype=torch.int32)
    thresholds[0, :4] = torch.tensor([-3, 3, 4, -99])
    assert fire(as_bits(x), in_bits(weight), thresholds, 3, 1, 0).item() == 0b1011


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 130), outputs=st.integers(1, 130), size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), stride=st.integers(1, 3), padding=st.integers(0, 1),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_sums_and_signs_are_those_of_a_convolution_of_floats(
    channels: int, outputs: int, size: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int, seed: int
) -> None:
    kernel = (min(kernel[0], size[0] + 2 * padding), min(kernel[1], size[1] + 2 * padding))
    x, weight = signs(3, channels, *size, seed=seed), signs(outputs, channels, *kernel, seed=seed + 1)
    expected = functional.conv2d(x.double(), weight.double(), stride=stride, padding=padding)
    bits, packed = as_bits(x), in_bits(weight)
    made = sums(bits, packed, outputs, channels, stride, padding)
    assert torch.equal(made.permute(0, 3, 1, 2).double(), expected)
    thresholds = torch.randint(-5, 6, (outputs,), generator=torch.Generator().manual_seed(seed))
    above = functional.pad(thresholds, (0, -outputs % 64), value=10**6).view(-1, 64).int()
    fired = fire(bits, packed, above, channels, stride, padding)
    expected = torch.where(expected >= thresholds.view(-1, 1, 1), 1.0, -1.0)
    assert torch.equal(from_bits(fired, outputs).double(), expected)
    assert torch.equal(fired, as_bits(expected.float()))  # the bits beyond the outputs are 0


@pytest.mark.parametrize("enough", [1, 10**9])
def test_threads_share_the_images_and_change_nothing(
    enough: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = signs(7, 70, 5, 5), signs(70, 70, 3, 3)
    bits, packed = as_bits(x), in_bits(weight)
    sums(bits, packed, 70, 70, 2, 1)  # compiled before its numpy is another
    monkeypatch.setattr(popcount, "ENOUGH", enough)
    parts: list[int] = []

    def split(values: object, count: int) -> object:
        parts.append(count)
        return numpy.array_split(values, count)

    monkeypatch.setattr(popcount, "np", SimpleNamespace(**{**vars(numpy), "array_split": split}))
    made = sums(bits, packed, 70, 70, 2, 1)
    assert torch.equal(made.permute(0, 3, 1, 2), functional.conv2d(x, weight, stride=2, padding=1))
    assert parts == ([] if threads == 1 or enough > 1 else [threads, threads])
    assert len(sums(bits[:0], packed, 70, 70, 2, 1)) == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors call it something else")
def test_the_processor_counts_bits_itself() -> None:
    fire(as_bits(signs(1, 3, 1, 1)), in_bits(signs(1, 3, 1, 1)), torch.zeros(1, 64, dtype=torch.int32), 3, 1, 0)
    assert "popcnt" in "".join(fire_kernel.inspect_asm().values())
