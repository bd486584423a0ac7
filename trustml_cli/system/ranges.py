"""Range checks for numbers in the configuration."""

from dataclasses import fields
from math import isfinite
from types import NoneType
from typing import Any, get_args


def require(
    holder: Any,
    *names: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ValueError unless the fields `names` of a dataclass are finite numbers in the range, or None.

    The message names the field, the range and the value: `steps: must be at least 1, got 0`.
    """
    for name in names:
        value = getattr(holder, name)
        if value is None:
            continue
        holds = isfinite(value)
        holds = holds and (at_least is None or value >= at_least) and (above is None or value > above)
        holds = holds and (at_most is None or value <= at_most) and (below is None or value < below)
        if holds:
            continue
        bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
        words = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
        if at_least is not None and at_most is not None:
            words = [f"between {at_least:g} and {at_most:g}"]
        if at_most is None and below is None and isinstance(value, float):
            words.append("finite")
        shown = f"{value:g}" if isinstance(value, float) else value
        nullable = any(each.name == name and NoneType in get_args(each.type) for each in fields(holder))
        raise ValueError(f"{name}: must be {' and '.join(words)}{' (or null)' if nullable else ''}, got {shown}")
