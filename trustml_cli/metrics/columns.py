"""What a task declares of the columns that it writes to metrics.csv: their names, and which way is better.

A task's class has them as `columns`, in the order in which they stand in the file:

    columns: ClassVar[Columns] = (
        *conditions("attack", "norm", "epsilon"),
        *higher("clean_accuracy", "robust_accuracy"),
        *lower("attack_success_rate", "seconds"),
        *neither("mean_l2"),
        *sometimes(higher("p_rule_{attribute}")),
    )

`{attribute}` stands for one of several names, which are the data's or the user's. Intervals and counts
(`NAME_ci_low`, `NAME_ci_high`, `NAME_n`) come with their column and are not declared, nor is what every row begins
with. The recorder refuses a column that is not declared, and writes into run.json which way the others are better.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import TypeAlias

PARTS = ("_ci_low", "_ci_high", "_n")
OVER_SEEDS, POOLED = "_over_seeds", "_pooled"  # whose interval it is, in a summary: NAME_over_seeds_ci_low
RANGES = (
    (r"(.*_)?p_rule(_.*)?", 0, 100),
    (r"(.*_)?(correlation|cosine)(_.*)?", -1, 1),
    (r"(.*_)?(accuracy|rate|agreement|confidence|auc|auroc|aupr|ece|advantage)(_.*)?|(.*_)?share_.*", 0, 1),
    (r"(fpr|tpr)_at_.*|(demographic_parity|equalized_odds)_difference(_.*)?|max_probability_error", 0, 1),
    (r"(.*_)?(loss|nll|seconds|per_second|epochs|queries|gradients|bytes|images|size|error|gap|temperature)", 0, inf),
    (r"brier|queries_used|outliers|mean_l(0|1|2|inf)", 0, inf),
)
"""By the whole name of a value, what is the least and the most that it can be; the first that fits counts."""


def natural_range(name: str) -> tuple[float, float]:
    """The least and the most that the value called `name` can be; without bounds where nothing is known of it."""
    return next(((least, most) for words, least, most in RANGES if re.fullmatch(words, name)), (-inf, inf))


def within(name: str, low: float, high: float) -> tuple[float, float]:
    """The ends of an interval of the value called `name`, no further out than it can be; nan stays."""
    least, most = natural_range(name)
    return (least if low < least else low), (most if high > most else high)


class Better(Enum):
    """Which values are better for whoever relies on the model."""

    higher = "higher"
    lower = "lower"
    neither = "neither"
    """It depends, or it is good for somebody else: a thief's accuracy, the size of a perturbation."""


@dataclass(frozen=True)
class Column:
    """A column of metrics.csv, or with `{…}` in its name a family of them."""

    name: str
    better: Better
    condition: bool = False
    """Whether it says under what a row was measured."""
    always: bool = True
    """Whether every row of every run has a value in it."""

    def holds(self, name: str) -> bool:
        """Whether this is the declaration of the column `name`."""
        words = re.split(r"\{\w+\}", self.name)
        return re.fullmatch(".*".join(map(re.escape, words)), name, re.DOTALL) is not None


Columns: TypeAlias = tuple[Column, ...]


def conditions(*names: str) -> Columns:
    """Columns that say under what a row was measured."""
    return tuple(Column(name, Better.neither, condition=True) for name in names)


def higher(*names: str) -> Columns:
    """Values of which a higher one is better for whoever relies on the model."""
    return tuple(Column(name, Better.higher) for name in names)


def lower(*names: str) -> Columns:
    """Values of which a lower one is better for whoever relies on the model."""
    return tuple(Column(name, Better.lower) for name in names)


def neither(*names: str) -> Columns:
    """Values of which none is better than another."""
    return tuple(Column(name, Better.neither) for name in names)


def sometimes(columns: Columns) -> Columns:
    """The same columns, which some runs lack, or in which some rows have no value."""
    return tuple(replace(column, always=False) for column in columns)


def declared(columns: Columns, names: Iterable[str], condition: bool = False) -> dict[str, Column]:
    """The declaration of each of these `names`, conditions or values; intervals and counts have none.

    Raises `LookupError` for a name that is not declared.
    """
    written = list(names)
    found = {}
    for name in written:
        if any(name.endswith(end) and name.removesuffix(end) in written for end in PARTS):
            continue
        match = next((column for column in columns if column.condition is condition and column.holds(name)), None)
        if match is None:
            raise LookupError(f"{name}: the task declares no such {'condition' if condition else 'value'} in `columns`")
        found[name] = match
    return found
