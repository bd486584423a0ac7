"""The rows of a table that debiasing needs: of every group, for choosing thresholds, and drawn by their weights."""

import logging

import torch
from torch import Tensor

from trustml_cli.data.dataset import Dataset
from trustml_cli.data.table import Rows, Table, divide_strata
from trustml_cli.fairness.constraint import Constraint
from trustml_cli.fairness.reweighing import crossed, resample, reweighing
from trustml_cli.system.errors import InputError

log = logging.getLogger(__name__)

FEW = 20  # with fewer rows of a group, a threshold or a check is uncertain
HALF = 0.5  # share of the validation rows on which thresholds are chosen; the others are for the checks


def as_table(data: Dataset, name: str) -> Table:
    """`data` as a table; raises `InputError` unless it is one with sensitive columns."""
    if not isinstance(data, Table):
        raise InputError(f"dataset={name}: task=debias needs a table with sensitive columns; use census, adult or csv")
    if not data.attributes:
        raise InputError("dataset.sensitive: task=debias needs at least one column, e.g. [race,sex]")
    return data


def check_groups(table: Table, constraint: Constraint, *parts: Rows) -> None:
    """Raise `InputError` unless every part has rows of at least two groups of each attribute.

    Where the constraint is about rows of a label, these are counted.
    """
    for part in parts:
        if not len(part):
            raise InputError("task.validation_fraction: leaves no rows on one side; choose another share")
        for label in constraint.labels or (None,):
            kind = "rows" if label is None else f"rows with the label {table.classes[label]!r}"
            counted = part.sensitive if label is None else part.sensitive[part.labels == label]
            for attribute, group in zip(table.attributes, counted.T, strict=True):
                if len(present := torch.unique(group)) < 2:
                    only = ", ".join(repr(attribute.groups[int(number)]) for number in present) or "none"
                    raise InputError(
                        f"dataset: {len(counted)} {kind} hold {only} alone of the groups in {attribute.name!r}; use "
                        "more rows (dataset.limit) or another split"
                    )


def choosing_rows(table: Table, validation: Rows, constraint: Constraint, folds: int) -> tuple[Tensor | None, Tensor]:
    """Indices of the validation rows on which thresholds are chosen, and of those on which they are checked.

    With `folds`, they are chosen on training rows (the first is None) and checked on all validation rows. Raises
    `InputError` where a combination of groups has no row to choose its threshold on, or none of one of the
    constraint's labels; warns where there are fewer than `FEW`.
    """
    chosen, judging = divide_strata(validation.strata, HALF, seed=1)
    among = table.train if folds else validation.subset(chosen)
    everyone = [part.sensitive for part in (table.train, validation, table.test)]
    needed = torch.unique(torch.cat(everyone), dim=0)
    counts = []
    for groups in needed:
        labels = among.labels[(among.sensitive == groups).all(1)]
        by_label = [int((labels == truth).sum()) for truth in constraint.labels]
        counts.append((min(by_label, default=len(labels)), groups))
    least, groups = min(counts, key=lambda one: one[0])
    who = ", ".join(attribute.groups[int(number)] for attribute, number in zip(table.attributes, groups, strict=True))
    rows = {0: "rows", 1: "rows of the favourable label", 2: "rows of each label"}[len(constraint.labels)]
    if least == 0:
        raise InputError(
            f"task.method: thresholds has no {rows} of {who} to choose by among {len(among)} "
            f"{'training' if folds else 'validation'} rows; use more rows, a larger task.validation_fraction, or "
            "fewer groups (dataset.races, dataset.sensitive)"
        )
    if least < FEW:
        log.warning("the thresholds of %s are chosen by %d %s only, and may not hold for others", who, least, rows)
    return (None, torch.arange(len(validation))) if folds else (chosen, judging)


def reweighed(table: Table, seed: int) -> Table:
    """The same table with training rows resampled by the reweighing weights of the crossed groups."""
    weights = reweighing(table.train.labels, crossed(table.train.sensitive))
    drawn = resample(weights, torch.Generator().manual_seed(seed))
    return table.derive(f"reweighed, seed={seed}", train=table.train.subset(drawn))
