"""Ranges of numbers, by hand."""

import re
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import pytest

from trustml_cli.system.ranges import require


@dataclass
class Keys:
    steps: int | None = 1
    share: float = 0.5


@pytest.mark.parametrize(
    ("steps", "share", "bounds", "message"),
    [
        (0, 0.5, {"at_least": 1}, "steps: must be at least 1 (or null), got 0"),
        (1, 0.0, {"above": 0}, "share: must be above 0 and finite, got 0"),
        (1, inf, {"at_least": 0}, "share: must be at least 0 and finite, got inf"),
        (1, nan, {"at_least": 0, "at_most": 1}, "share: must be between 0 and 1, got nan"),
        (0, 1.0, {"at_least": 0, "below": 1}, "share: must be at least 0 and below 1, got 1"),
        (None, 0.0, {"above": 0, "at_most": 0.5}, "share: must be above 0 and at most 0.5, got 0"),
        (-3, 0.5, {"above": -3, "below": 3}, "steps: must be above -3 and below 3 (or null), got -3"),
    ],
)
def test_a_number_outside_its_range_is_named(steps: int, share: float, bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require(Keys(steps, share), "steps", "share", **bounds)


def test_ends_of_the_range_and_null_are_accepted() -> None:
    require(Keys(1, 1.0), "steps", "share", at_least=1, at_most=1)
    require(Keys(0, 1e-9), "share", above=0)
    require(Keys(None, 0.5), "steps", at_least=1)
