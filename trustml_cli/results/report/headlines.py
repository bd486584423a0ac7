"""The headline of a run: its main value in each row, and what it is compared with."""

from math import inf

import pandas

from trustml_cli.metrics.columns import PARTS, in_words
from trustml_cli.results.aggregate import Run
from trustml_cli.results.report.table import NOTHING, Cell, is_number, measured, shown

SOME = 4  # headlines from which on the lowest and the highest are named
BESIDE = (("baseline_{}", "clean network"), ("noise_{}", "noise in its place"), ("bare_{}", "unchanged images"))
"""Columns that any headline is compared with, and how it calls them."""
OWN = {
    "robust_accuracy": (("clean_accuracy", "clean"),),
    "rectified_accuracy": (("accuracy", "without the rectifier"),),
    "triggered_accuracy": (("clean_accuracy", "without the trigger"),),
    "student_accuracy": (("nonprivate_accuracy", "without privacy"),),
    "agreement": (("stolen_accuracy", "accuracy of the copy"), ("victim_accuracy", "of the victim")),
    "lowest_p_rule": (("accuracy", "accuracy"),),
}
"""The same for single headlines."""


def headlines(run: Run) -> list[tuple[str, Cell, str]]:
    """The headline value of each row that has one, with the conditions that distinguish the row.

    The third part says what the value is compared with.
    """
    if run.headline is None:
        return []
    beside, names = compared_with(run), distinguishing(run)
    return [
        (
            ", ".join(f"{in_words(name)} {shown(row[name])}" for name in names),
            cell,
            ", ".join(
                f"{words} {other.text}" for name, words in beside if (other := measured(row, name)).text != NOTHING
            ),
        )
        for row in run.metrics.to_dict("records")
        if (cell := measured(row, run.headline)).text != NOTHING
    ]


def distinguishing(run: Run) -> list[str]:
    """The conditions that differ between rows, without those that follow from the ones before them."""
    names: list[str] = []
    for name in run.varied:
        kinds = [len(run.metrics[some].drop_duplicates()) if some else 1 for some in (names, [*names, name])]
        names += [name] if kinds[1] > kinds[0] else []
    return names


def ends(run: Run) -> list[tuple[str, Cell]]:
    """The lowest and the highest headline with their conditions; none where there are few, or all are equal."""
    known = [(condition, cell) for condition, cell, _ in headlines(run) if is_number(cell.sort)]
    known.sort(key=lambda each: each[1].sort)
    return [known[0], known[-1]] if len(known) >= SOME and known[0][1].text != known[-1][1].text else []


def compared_with(run: Run) -> list[tuple[str, str]]:
    """The columns that the headline of a run is compared with, and how a headline calls each."""
    found = [(kind.format(run.headline), words) for kind, words in BESIDE]
    found += OWN.get(run.headline or "", ())
    return [(name, words) for name, words in found if name in run.metrics]


def headline_columns(run: Run) -> list[str]:
    """The conditions, the headline and what it is compared with, with their intervals and counts."""
    names = [name for name in (run.headline, *(name for name, _ in compared_with(run))) if name]
    parts = [f"{name}{end}" for name in names for end in ("", *PARTS)]
    return [name for name in (*run.conditions, *parts) if name in run.metrics]


def result(run: Run) -> str:
    """The headline value as text; for several rows, both ends of a curve, or the lowest and the highest."""
    told = headlines(run)
    if any(not pandas.api.types.is_numeric_dtype(run.metrics[name]) for name in distinguishing(run)):
        told.sort(key=lambda each: each[1].sort if is_number(each[1].sort) else -inf)
    figures = [
        f"{cell.text} ({'; '.join(filter(None, (condition, beside)))})" if condition or beside else cell.text
        for condition, cell, beside in told
    ]
    return f"{in_words(run.headline)} {' … '.join(figures[:1] + figures[1:][-1:])}" if figures and run.headline else ""
