"""The checks of a run that promises differential privacy."""

from collections.abc import Sequence
from math import isfinite

SYSTEM_NOISE = "noise comes from the operating system and is not recorded"


def promise(
    key: str, noise_seed: int | None, delta: float, examples: int, epsilon: float, accountant: str
) -> Sequence[tuple[str, bool, str]]:
    """Names, outcomes and figures; `key` is the config key of `noise_seed`, which is None for real noise."""
    seeded = "no" if noise_seed is None else f"{key}={noise_seed}: a rehearsal, not private"
    return [
        (SYSTEM_NOISE, noise_seed is None, f"seeded: {seeded}"),
        ("delta is below 1 over the training examples", delta * examples < 1, f"{delta:g}, n = {examples:,}"),
        ("epsilon is finite", isfinite(epsilon), f"{epsilon:.4g} by {accountant}"),
    ]
