"""Shifts by hand: which pixels move where, and what fills the gap."""

import pytest
import torch

from trustml_cli.corruptions.shift import Fill, offsets, shifted

X = torch.arange(1.0, 10).view(1, 1, 3, 3)


@pytest.mark.parametrize(
    ("down", "right", "fill", "expected"),
    [
        (0, 0, Fill.black, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (1, 0, Fill.black, [[0, 0, 0], [1, 2, 3], [4, 5, 6]]),
        (0, 1, Fill.edge, [[1, 1, 2], [4, 4, 5], [7, 7, 8]]),
        (-1, 0, Fill.edge, [[4, 5, 6], [7, 8, 9], [7, 8, 9]]),
        (0, -2, Fill.black, [[3, 0, 0], [6, 0, 0], [9, 0, 0]]),
        (1, -1, Fill.circular, [[8, 9, 7], [2, 3, 1], [5, 6, 4]]),
    ],
)
def test_pixels_move_down_and_right(down: int, right: int, fill: Fill, expected: list[list[int]]) -> None:
    assert shifted(X, down, right, fill)[0, 0].tolist() == expected


def test_offsets_are_all_up_to_the_distance() -> None:
    assert offsets(1) == [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]
    assert len(set(offsets(5))) == 121
