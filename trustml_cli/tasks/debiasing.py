"""Metrics and checks of the stages of debiasing, and group thresholds applied after a classifier."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from trustml_cli.data.table import Rows, Table
from trustml_cli.fairness.adversarial import log_odds
from trustml_cli.fairness.by_group import group_columns
from trustml_cli.fairness.constraint import Constraint
from trustml_cli.fairness.equalized_odds import chances, decided, equalized_odds_rules
from trustml_cli.fairness.guesses import guesses_by_boosting, guesses_by_score
from trustml_cli.fairness.measure import Scored, adversary_aucs, area_interval, group_intervals
from trustml_cli.fairness.metrics import group_metrics, without_rate
from trustml_cli.fairness.reweighing import crossed
from trustml_cli.fairness.thresholds import parity_thresholds, shifted
from trustml_cli.metrics.intervals import by_image
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.debias_rows import FEW
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

DECISION = 2.0  # log-odds ±2 stand for randomized decisions, which have no score

Guesses: TypeAlias = dict[str, list[Tensor]]
"""For each adversary by name: for each attribute, a score of each group [N, G]."""


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


def fold_networks(
    context: Context, table: Table, folds: int, model: Model, trainer: Trainer
) -> Iterator[tuple[Table, Rows, nn.Module]]:
    """For each fold the table without it, its rows, and the classifier that is trained on the others."""
    for number, (kept, aside) in enumerate(table.cross_validation(folds, seed=0), start=1):
        yield kept, aside, context.train_or_load(context.spec(kept, model, trainer), stage=f"fold {number}").network


def out_of_fold(context: Context, table: Table, folds: int, model: Model, trainer: Trainer) -> Scored:
    """All training rows, each scored by the classifier that was trained on the other folds."""
    fits = fold_networks(context, table, folds, model, trainer)
    return together([score(context, network, aside) for _, aside, network in fits])


def together(parts: Sequence[Scored]) -> Scored:
    """All rows of several parts."""
    return Scored(*(torch.cat([getattr(part, name) for part in parts]) for name in ("odds", "labels", "sensitive")))


def row(table: Table, test: Scored, guesses: Guesses, seed: int) -> dict[str, Any]:
    """The metrics of one stage on its test rows; `adversary_auc` is the largest AUC over the adversaries' `guesses`."""
    values: dict[str, Any] = {
        **by_image("accuracy", test.right),
        "roc_auc": test.roc_auc,
    }
    aucs = {name: adversary_aucs(guess, test.sensitive) for name, guess in guesses.items()}
    for number, (attribute, group) in enumerate(zip(table.attributes, test.sensitive.T, strict=True)):
        ends = group_intervals(test.selected, test.labels, group, seed)
        measured = group_metrics(test.selected, test.labels, group)
        for name in ("p_rule", "adversary_auc", *(name for name in measured if name != "p_rule")):
            column = f"{name}_{attribute.name}"
            if name == "adversary_auc":
                values |= strongest(column, [(guess[number], group) for guess in guesses.values()], seed)
            else:
                values |= with_ends(column, measured[name], ends[name])
        values |= {f"{name}_auc_{attribute.name}": area[number] for name, area in aucs.items()}
    return values


def within_labels(table: Table, stage: Stage, constraint: Constraint, seed: int) -> dict[str, float]:
    """The columns of a constraint within labels: its largest difference, and how far scores give away the groups there.

    The latter is for each attribute the largest AUC, over the constraint's labels, of two adversaries (the score itself
    and boosting) among rows of that label. Empty for demographic parity.
    """
    if not constraint.labels:
        return {}
    values = {f"largest_{constraint.measure}": float(torch.tensor(stage.test.fairness(constraint.measure)).max())}
    groups = [len(attribute.groups) for attribute in table.attributes]
    every: list[tuple[Scored, list[Tensor]]] = []
    for label in constraint.labels:
        known, asked = stage.validation.of_label(label), stage.test.of_label(label)
        every.append((asked, guesses_by_score(known, asked, groups)))
        every.append((asked, guesses_by_boosting(known, asked, groups, seed)))
    for number, attribute in enumerate(table.attributes):
        own = [(guess[number], asked.sensitive[:, number]) for asked, guess in every]
        values |= strongest(f"label_adversary_auc_{attribute.name}", own, seed)
    return values


def strongest(column: str, guesses: Sequence[tuple[Tensor, Tensor]], seed: int) -> dict[str, float]:
    """The largest AUC, with its interval, of `guesses` [N, G] of the groups [N] beside them."""
    aucs = [adversary_aucs([guess], group[:, None])[0] for guess, group in guesses]
    best = aucs.index(max(aucs))
    return with_ends(column, aucs[best], area_interval(*guesses[best], seed))


def with_ends(column: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    """A value with the columns of its interval."""
    return {column: value, f"{column}_ci_low": ends[0], f"{column}_ci_high": ends[1]}


def rows_by_group(table: Table, stages: Mapping[str, tuple[Scored, Tensor]], seed: int) -> list[dict[str, Any]]:
    """The rows of groups.csv: for each stage, its decisions and its probabilities of the favourable class [N]."""
    return [
        {"group": name, "attribute": attribute.name, "stage": stage}
        | group_columns(scored, probability, group == number, seed)
        for stage, (scored, probability) in stages.items()
        for attribute, group in zip(table.attributes, scored.sensitive.T, strict=True)
        for number, name in enumerate(attribute.groups)
        if (group == number).any()
    ]


def trade_off(rows: Sequence[Mapping[str, Any]], test: Scored, number: int) -> str:
    """Why calibration and equalized odds cannot both be had for one attribute, with the figures of its `rows`."""

    def span(name: str) -> str:
        values = [row[name] for row in rows]
        return f"{in_percent(min(values)).removesuffix(' %')} to {in_percent(max(values))}"

    return (
        f"{rows[0]['attribute']}: the share of the favourable label is {span('base_rate')} by group; where it differs, "
        "no classifier that errs is calibrated in every group and has equalized odds (Kleinberg et al. 2016, "
        f"Chouldechova 2017). Here calibration errors are {span('ece')} (of a calibrated classifier "
        f"{span('ece_null')}), precision is {span('precision')}, and the equalized odds difference "
        f"{test.fairness('equalized_odds_difference')[number]:.3f}"
    )


def check_fairness(context: Context, table: Table, stage: Stage, constraint: Constraint, wanted: float) -> None:
    """Check that the metric of the `constraint` meets the bound `wanted` for every attribute.

    It is computed on rows by which nothing was chosen. The check is undecided (None) with fewer than `FEW` rows of a
    group, or of one of the constraint's labels within a group.
    """
    rows, verdicts, figures, sizes = stage.judging, [], [], []
    parity = constraint is Constraint.demographic_parity
    counted = rows.labels == 1 if constraint is Constraint.equal_opportunity else torch.ones(len(rows.labels)).bool()
    values = rows.fairness(constraint.measure)
    for attribute, group, value in zip(table.attributes, rows.sensitive.T, values, strict=True):
        ends = group_intervals(rows.selected, rows.labels, group, context.seed)[constraint.measure]
        sizes.append(fewest((group if parity else 2 * group + rows.labels)[counted]))
        known = sizes[-1] >= FEW and isfinite(value)
        verdicts.append(holds(value, ends, wanted, higher=parity) if known else None)
        percent = " %" * parity
        figures.append(f"{attribute.name} {value:.3g}{percent} ({ends[0]:.3g} to {ends[1]:.3g}{percent})")
    passed = False if False in verdicts else None if None in verdicts else True
    name = constraint.value.replace("_", " ")
    what = f"p-rules are at least {wanted:g} %" if parity else f"{name} differences are at most {wanted:g}"
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


def by_thresholds(before: Stage, constraint: Constraint, known: Scored, judging: Tensor, seed: int) -> Stage:
    """Predictions with thresholds for each combination of groups, chosen on the rows `known`."""
    parts = (before.train, before.validation, before.test)
    every = [part.sensitive for part in (*parts, known)]
    *groups, numbers = torch.split(crossed(torch.cat(every)), [len(part) for part in every])
    drawn = 0.0
    if constraint is not Constraint.equalized_odds:
        favourable = constraint is Constraint.equal_opportunity
        counted = known.labels == 1 if favourable else torch.ones(len(known.labels)).bool()
        cuts = parity_thresholds(known.odds, known.labels, numbers, counted)
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
