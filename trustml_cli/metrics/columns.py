"""The declaration of a task's columns in metrics.csv: their names, and which direction is better.

A task's class declares them as `columns`, in the order of the file:

    columns: ClassVar[Columns] = (
        *conditions("attack", "norm", "epsilon"),
        *logged(higher("clean_accuracy")),
        *headline(higher("robust_accuracy")),
        *lower("attack_success_rate", "seconds"),
        *neither("mean_l2"),
        *sometimes(higher("p_rule_{attribute}")),
    )

`{attribute}` stands for one of several names, given by the data or the user. Intervals and counts (`NAME_ci_low`,
`NAME_ci_high`, `NAME_n`) belong to their column and are not declared, nor are the columns that begin every row. The
recorder refuses an undeclared column, writes the direction of all others and the headline to run.json, and logs the
headline and the `logged` columns of every row.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import TypeAlias

from trustml_cli.metrics.numbers import in_percent, significant

PARTS = ("_ci_low", "_ci_high", "_n")
ANSWERS = "_answers"  # NAME_answers: the values by image behind NAME, which are not a column
OVER_SEEDS, POOLED = "_over_seeds", "_pooled"  # kinds of interval in a summary: NAME_over_seeds_ci_low
RANGES = (
    (r"relative_corruption_error", -inf, inf),
    (r"(.*_)?p_rule(_.*)?", 0, 100),
    (r"(.*_)?(correlation|cosine)(_.*)?", -1, 1),
    (
        r"(.*_)?(accuracy|rate|agreement|confidence|auc|auroc|aupr|ece|advantage|consistency|coverage|precision)(_.*)?|(.*_)?share_.*",
        0,
        1,
    ),
    (r"(fpr|tpr)_at_.*|(demographic_parity|equalized_odds)_difference(_.*)?|max_probability_error", 0, 1),
    (
        r"(.*_)?(loss|nll|seconds|per_second|epochs|queries|gradients|parameters|bytes|images|per_image|size|error|gap|temperature)",
        0,
        inf,
    ),
    (r"brier|queries_used|outliers|median_distance|mean_l(0|1|2|inf)", 0, inf),
)
"""Patterns of value names with the minimum and maximum of such values; the first full match is used."""


SHARE = re.compile(
    r"(.*_)?(accuracy|rate|agreement|confidence|coverage|consistency|advantage|ece|precision)(_.*)?|(.*_)?share(_.*)?|(fpr|tpr)_at_.*"
)
TERMS = {
    "auc": "AUC", "auroc": "AUROC", "aupr": "AUPR", "fpr": "FPR", "tpr": "TPR", "ece": "ECE", "nll": "NLL", "l0": "L0",
    "l1": "L1", "l2": "L2", "linf": "L∞", "roc": "ROC",
}  # fmt: skip
"""Words of column names that are written otherwise."""
PHRASES = {
    "bare_success_rate": "success rate of unchanged images",
    "donor_attack_success_rate": "attack success rate before the transfer",
    "donor_clean_accuracy": "clean accuracy before the transfer",
    "inlier_rate": "inliers that pass",
    "outlier_inlier_rate": "outliers that pass",
    "share_invariant": "share with one answer under all shifts",
    "sure_success_rate": "success rate at 90 % confidence",
    "unlike_rate": "share unlike the training images",
}
"""Column names whose words alone say too little."""


def is_share(name: str) -> bool:
    """Whether the value called `name` is a share, which people read in percent."""
    return natural_range(name)[1] == 1 and SHARE.fullmatch(name) is not None


def is_percentage(name: str) -> bool:
    """Whether the value called `name` is itself a number of percent, as the p-rule is."""
    return natural_range(name)[1] == 100


def in_words(name: str) -> str:
    """A column's name as people write it: 'FPR at 95 % TPR' for fpr_at_95_tpr, 'p-rule sex' for p_rule_sex."""
    if name in PHRASES:
        return PHRASES[name]
    name = re.sub(r"(\d)_(?=tpr|fpr)", r"\1_%_", name).replace("p_rule", "p-rule")
    return " ".join(TERMS.get(word, word) for word in name.split("_")).strip()


def written(name: str, number: float) -> str:
    """The value called `name` as people read it: a share in percent, any other number with four significant digits.

    Seconds have three. Large numbers have thousands separators.
    """
    if is_share(name):
        return in_percent(number)
    if name.endswith("seconds") and abs(number) < 1000:
        return f"{number:.3g}"
    return f"{number:.1f} %" if is_percentage(name) else significant(number)


def natural_range(name: str) -> tuple[float, float]:
    """The bounds of the value called `name`; infinite if unknown."""
    return next(((least, most) for words, least, most in RANGES if re.fullmatch(words, name)), (-inf, inf))


def within(name: str, low: float, high: float) -> tuple[float, float]:
    """The bounds of an interval of the value called `name`, clipped to its range; nan is kept."""
    least, most = natural_range(name)
    return (least if low < least else low), (most if high > most else high)


class Better(Enum):
    """Which direction of a value is better for users of the model."""

    higher = "higher"
    lower = "lower"
    neither = "neither"
    """No better direction, or better for others than users: a thief's accuracy, the size of a perturbation."""


@dataclass(frozen=True)
class Column:
    """A column of metrics.csv or, with `{…}` in its name, a family of columns."""

    name: str
    better: Better
    condition: bool = False
    """Whether the column is a condition of the measurement."""
    always: bool = True
    """Whether every row of every run has a value in this column."""
    headline: bool = False
    """Whether this is the main metric of the task, which sweeps and listings show first."""
    logged: bool = False
    """Whether the log line of a row has this value; the headline is always in it."""

    def holds(self, name: str) -> bool:
        """Whether this declares the column `name`."""
        words = re.split(r"\{\w+\}", self.name)
        return re.fullmatch(".*".join(map(re.escape, words)), name, re.DOTALL) is not None


Columns: TypeAlias = tuple[Column, ...]


def conditions(*names: str) -> Columns:
    """Columns that are conditions of a measurement."""
    return tuple(Column(name, Better.neither, condition=True) for name in names)


def higher(*names: str) -> Columns:
    """Values of which a higher one is better for users of the model."""
    return tuple(Column(name, Better.higher) for name in names)


def lower(*names: str) -> Columns:
    """Values of which a lower one is better for users of the model."""
    return tuple(Column(name, Better.lower) for name in names)


def neither(*names: str) -> Columns:
    """Values without a better direction."""
    return tuple(Column(name, Better.neither) for name in names)


def sometimes(columns: Columns) -> Columns:
    """Marks columns as optional: some runs lack them, or some rows have no value."""
    return tuple(replace(column, always=False) for column in columns)


def headline(columns: Columns) -> Columns:
    """Marks the one column that is the main metric of the task."""
    return tuple(replace(column, headline=True) for column in columns)


def logged(columns: Columns) -> Columns:
    """Marks the columns that the log line of a row shows after the headline."""
    return tuple(replace(column, logged=True) for column in columns)


def declared(columns: Columns, names: Iterable[str], condition: bool = False) -> dict[str, Column]:
    """The declaration of each of these `names`, conditions or values, except intervals and counts.

    Raises `LookupError` for an undeclared name.
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
