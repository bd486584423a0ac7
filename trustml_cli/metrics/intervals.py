"""Proportions and means with confidence intervals."""

from math import nan, sqrt
from typing import Any

import torch
from torch import Tensor

from trustml_cli.metrics.columns import ANSWERS, natural_range, within

Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927), both ends in [0, 1]; nan where n is 0.

    Both arguments may be fractional: an effective sample size of equal variance.
    """
    if n == 0:
        return nan, nan
    share = successes / n
    centre = share + Z_95**2 / (2 * n)
    half_width = Z_95 * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    scale = 1 + Z_95**2 / n
    low, high = (centre - half_width) / scale, (centre + half_width) / scale
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding errors must not exclude the share


def proportion(name: str, successes: int, n: int) -> dict[str, Any]:
    """The columns of one proportion: NAME, NAME_ci_low, NAME_ci_high and NAME_n."""
    return with_interval(name, successes / n if n else nan, wilson_interval(successes, n), n)


def with_interval(name: str, value: float, ends: tuple[float, float], n: int) -> dict[str, Any]:
    """The columns of one value: NAME, NAME_ci_low, NAME_ci_high and NAME_n."""
    return {name: value, f"{name}_ci_low": ends[0], f"{name}_ci_high": ends[1], f"{name}_n": n}


def by_image(name: str, values: Tensor) -> dict[str, Any]:
    """The columns of a proportion (bool [N]) or a mean (numbers [N]), and the values themselves as NAME_answers.

    The recorder keeps them in artifacts/, so that two networks can be compared image by image.
    """
    columns = proportion(name, int(values.sum()), len(values)) if values.dtype is torch.bool else average(name, values)
    return {**columns, f"{name}{ANSWERS}": values}


def average(name: str, values: Tensor) -> dict[str, Any]:
    """The columns of a mean: NAME, NAME_ci_low, NAME_ci_high and NAME_n, with Student's 95 % interval.

    The interval is clipped to the value's range. Where all values are 0, or all are 1, and other shares are possible,
    Student's interval has no width, and Wilson's is taken. `values` has shape [N]; the bounds are nan if N is below 2.
    """
    from scipy.special import stdtrit  # also in scipy.stats, whose import takes half a second

    n, mean = len(values), values.double().mean().item()
    if n > 1 and mean in (0, 1) and natural_range(name) == (0, 1):
        return with_interval(name, mean, wilson_interval(mean * n, n), n)
    half_width = float(stdtrit(n - 1, 0.975)) * values.double().std().item() / sqrt(n) if n > 1 else nan
    return with_interval(name, mean, within(name, mean - half_width, mean + half_width), n)


def median(name: str, values: Tensor) -> dict[str, Any]:
    """The columns of a median: NAME, NAME_ci_low, NAME_ci_high and NAME_n, with a 95 % interval of order statistics.

    The interval holds for every distribution. `values` has shape [N] and may hold infinities; the bounds are nan if N
    is below 6.
    """
    from scipy.special import bdtr

    ordered, n = values.double().sort().values, len(values)
    outside = int((bdtr(range(n), n, 0.5) <= 0.025).sum())  # so many values on either side are outside
    ends = (float(ordered[outside - 1]), float(ordered[n - outside])) if outside else (nan, nan)
    middle = (float(ordered[(n - 1) // 2]) + float(ordered[n // 2])) / 2
    return with_interval(name, middle, ends, n)
