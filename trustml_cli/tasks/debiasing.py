"""Metrics and checks of the stages of debiasing, and group thresholds applied after a classifier."""

import logging
from dataclasses import dataclass, replace
from enum import Enum
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from trustml_cli.data.table import Rows, Table, divide_strata
from trustml_cli.fairness.adversarial import log_odds
from trustml_cli.fairness.equalized_odds import chances, decided, equalized_odds_rules
from trustml_cli.fairness.measure import Scored, adversary_aucs, area_interval, group_intervals
from trustml_cli.fairness.metrics import (
    demographic_parity_difference,
    equalized_odds_difference,
    p_rule,
    without_rate,
)
from trustml_cli.fairness.reweighing import crossed
from trustml_cli.fairness.thresholds import parity_thresholds, shifted
from trustml_cli.metrics.intervals import by_image
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import predict

log = logging.getLogger(__name__)

FEW = 20  # with fewer rows of a group, a check is undecided
DECISION = 2.0  # log-odds ±2 stand for randomized decisions, which have no score
HALF = 0.5  # share of the validation rows on which thresholds are chosen; the others are for the checks


class Constraint(Enum):
    """The quantity that group thresholds equalize."""

    demographic_parity = "demographic_parity"
    """The selection rate: one threshold for each group (Corbett-Davies et al. 2017)."""
    equalized_odds = "equalized_odds"
    """True- and false-positive rates: randomized thresholds for each group (Hardt et al. 2016)."""


@dataclass(frozen=True)
class Stage:
    """Predictions for training, validation and test rows; `judging` are validation rows not used to choose thresholds.

    `drawn` is the share of test rows whose decision is randomized.
    """

    train: Scored
    validation: Scored
    test: Scored
    judging: Scored
    drawn: float = 0.0


def score(context: Context, network: nn.Module, rows: Rows) -> Scored:
    """The log-odds that `network` predicts for `rows`, with labels and groups."""
    answers = predict(network, rows, context.hardware)
    return Scored(log_odds(answers.logits.double()), answers.labels, rows.sensitive.cpu())


def ask(context: Context, network: nn.Module, parts: tuple[Rows, Rows, Rows]) -> Stage:
    """The predictions of `network` for training, validation and test rows."""
    train, validation, test = (score(context, network, rows) for rows in parts)
    return Stage(train, validation, test, validation)


def row(table: Table, test: Scored, guesses: dict[str, list[Tensor]], seed: int) -> dict[str, Any]:
    """The metrics of one stage on its test rows; `adversary_auc` is the largest AUC over the adversaries' `guesses`."""
    values: dict[str, Any] = {
        **by_image("accuracy", test.right),
        "roc_auc": test.roc_auc,
    }
    aucs = {name: adversary_aucs(guess, test.sensitive) for name, guess in guesses.items()}
    for number, (attribute, group) in enumerate(zip(table.attributes, test.sensitive.T, strict=True)):
        measured = {
            "p_rule": p_rule(test.selected, group),
            "demographic_parity_difference": demographic_parity_difference(test.selected, group),
            "equalized_odds_difference": equalized_odds_difference(test.selected, test.labels, group),
        }
        ends = group_intervals(test.selected, test.labels, group, seed)
        best = max(aucs, key=lambda name: aucs[name][number])
        measured["adversary_auc"] = aucs[best][number]
        ends["adversary_auc"] = area_interval(guesses[best][number], group, seed)
        for name in ("p_rule", "adversary_auc", "demographic_parity_difference", "equalized_odds_difference"):
            column = f"{name}_{attribute.name}"
            low, high = ends[name]
            values |= {column: measured[name], f"{column}_ci_low": low, f"{column}_ci_high": high}
        values |= {f"{name}_auc_{attribute.name}": area[number] for name, area in aucs.items()}
    return values


def check_fairness(context: Context, table: Table, stage: Stage, measure: str, wanted: float) -> None:
    """Check that every p-rule or equalized odds difference, whichever is the `measure`, meets the bound `wanted`.

    It is computed on rows by which nothing was chosen. The check is undecided (None) with fewer than `FEW` rows of a
    group, or for equalized odds of a label within a group.
    """
    rows, verdicts, figures, sizes = stage.judging, [], [], []
    parity = measure == "p_rule"
    for attribute, group in zip(table.attributes, rows.sensitive.T, strict=True):
        value = p_rule(rows.selected, group)
        if not parity:
            value = equalized_odds_difference(rows.selected, rows.labels, group)
        ends = group_intervals(rows.selected, rows.labels, group, context.seed)[measure]
        sizes.append(fewest(group if parity else 2 * group + rows.labels))
        known = sizes[-1] >= FEW and isfinite(value)
        verdicts.append(holds(value, ends, wanted, higher=parity) if known else None)
        figures.append(f"{attribute.name} {value:.3g} ({ends[0]:.3g} to {ends[1]:.3g})")
    passed = False if False in verdicts else None if None in verdicts else True
    what = f"p-rules are at least {wanted:g}" if parity else f"equalized odds differ by {wanted:g} at most"
    smallest = f"{min(sizes)} of the smallest group{'' if parity else ' and label'}"
    figure = f"{', '.join(figures)}; {len(rows.labels):,} rows, {smallest}"
    figure += ": too few to say" if passed is None else ""
    context.record.check(f"{what} on rows held back", passed, figure)


def holds(value: float, ends: tuple[float, float], wanted: float, higher: bool) -> bool | None:
    """Whether a value meets the bound `wanted`; None where only its confidence interval reaches it."""
    low, high = ends
    if (value >= wanted) if higher else (value <= wanted):
        return True
    return None if ((high >= wanted) if higher else (low <= wanted)) else False


def not_comparable(table: Table, rows: Scored) -> list[str]:
    """A message for each group without rows of one label, which equalized odds therefore leaves out."""
    words = {1: "favourable", 0: "unfavourable"}
    return [
        f"{attribute.name}={attribute.groups[number]} has no {words[truth]} label"
        for attribute, group in zip(table.attributes, rows.sensitive.T, strict=True)
        for number, truth in without_rate(rows.labels, group)
    ]


def fewest(group: Tensor) -> int:
    """The number of rows of the smallest group present."""
    return int(torch.unique(group, return_counts=True)[1].min())


def choosing_rows(table: Table, validation: Rows, constraint: Constraint) -> tuple[Tensor, Tensor]:
    """Indices of the validation rows on which thresholds are chosen, and of those on which they are checked.

    Raises `InputError` where a combination of groups has no row to choose its threshold on, or for equalized odds
    none of a label; warns where there are fewer than `FEW`.
    """
    chosen, judging = divide_strata(validation.strata, HALF, seed=1)
    everyone = [part.sensitive for part in (table.train, validation, table.test)]
    needed = torch.unique(torch.cat(everyone), dim=0)
    counts = []
    for groups in needed:
        here = (validation.sensitive[chosen] == groups).all(1)
        labels = validation.labels[chosen][here]
        by_label = [int((labels == truth).sum()) for truth in (0, 1)]
        counts.append((min(by_label) if constraint is Constraint.equalized_odds else sum(by_label), groups))
    least, groups = min(counts, key=lambda one: one[0])
    who = ", ".join(attribute.groups[int(number)] for attribute, number in zip(table.attributes, groups, strict=True))
    rows = "rows of each label" if constraint is Constraint.equalized_odds else "rows"
    if least == 0:
        raise InputError(
            f"task.method: thresholds has no {rows} of {who} to choose by among {len(chosen)} validation rows; take "
            "more rows, a larger task.validation_fraction, or fewer groups (dataset.races, dataset.sensitive)"
        )
    if least < FEW:
        log.warning("the thresholds of %s are chosen by %d %s only, and may not hold for others", who, least, rows)
    return chosen, judging


def by_thresholds(before: Stage, constraint: Constraint, chosen: Tensor, judging: Tensor, seed: int) -> Stage:
    """Predictions with thresholds for each combination of groups, chosen on the validation rows `chosen`."""
    parts = (before.train, before.validation, before.test)
    groups = torch.split(crossed(torch.cat([part.sensitive for part in parts])), [len(part.labels) for part in parts])
    known, numbers = before.validation.subset(chosen), groups[1][chosen]
    drawn = 0.0
    if constraint is Constraint.demographic_parity:
        cuts = parity_thresholds(known.odds, known.labels, numbers)
        odds = [shifted(part.odds, group, cuts) for part, group in zip(parts, groups, strict=True)]
    else:
        rules = equalized_odds_rules(known.odds, known.labels, numbers)
        random = torch.Generator().manual_seed(seed)
        selected = [decided(part.odds, group, rules, random) for part, group in zip(parts, groups, strict=True)]
        odds = [torch.where(yes, DECISION, -DECISION).double() for yes in selected]
        by_chance = chances(before.test.odds, groups[2], rules)
        drawn = ((by_chance > 0) & (by_chance < 1)).double().mean().item()
    train, validation, test = (replace(part, odds=own) for part, own in zip(parts, odds, strict=True))
    return Stage(train, validation, test, validation.subset(judging), drawn)
