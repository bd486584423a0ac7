"""task=debias: a classifier that treats groups of people alike, and what that costs in accuracy."""

import logging
from copy import deepcopy
from dataclasses import dataclass, replace
from enum import Enum
from math import inf, isfinite
from typing import Any, ClassVar

import torch
from torch import nn
from tqdm import tqdm

from trustml_cli.columns import Columns, conditions, higher, lower, neither
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.data.table import Rows, Table
from trustml_cli.errors import InputError, naming
from trustml_cli.fairness.adversarial import Adversary, Game, log_odds
from trustml_cli.fairness.measure import Point, Scored, adversary_aucs, p_rule_interval
from trustml_cli.fairness.metrics import demographic_parity_difference, equalized_odds_difference, p_rule
from trustml_cli.fairness.reweighing import crossed, resample, reweighing
from trustml_cli.fairness.thresholds import parity_thresholds, shifted
from trustml_cli.hardware import own_randomness
from trustml_cli.models.model import Model
from trustml_cli.plots.fairness import densities, training_path
from trustml_cli.statistics import proportion
from trustml_cli.tasks.context import Context
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Trainer, finite

log = logging.getLogger(__name__)

MEASURED = 60  # times at which the game is measured on validation rows


class Method(Enum):
    """How the classifier is made fair."""

    adversarial = "adversarial"
    """A game against an adversary that guesses the groups (Zhang et al. 2018)."""
    reweighing = "reweighing"
    """Trained on rows that are drawn so that label and groups are independent (Kamiran and Calders 2012)."""
    thresholds = "thresholds"
    """A threshold for each group (after Hardt et al. 2016); needs everyone's groups when it decides."""


@dataclass(frozen=True)
class Stage:
    """What a classifier says of each part of the rows."""

    train: Scored
    validation: Scored
    test: Scored


@dataclass(frozen=True, kw_only=True)
class Debias:
    """Train a classifier, then make it fair by `method`.

    `lambda` is the weight of each sensitive attribute in the game, in the order of the data set's; a single number
    holds for all. `rounds`, `batch_size`, `lr`, `weight_decay`, `adversary_batch_size` and `adversary_lr` are those of
    the game; the adversary goes over all rows `pretraining_epochs` times before it. The share `validation_fraction` of
    the training rows is trained on by nobody: the game is watched on them, and thresholds are chosen by them. Every
    p-rule shall reach `p_rule` percent on them; whether it does is noted as a check.
    """

    columns: ClassVar[Columns] = (
        *conditions("stage", "method"),
        *higher("accuracy", "roc_auc", "p_rule_{attribute}"),
        *lower("adversary_auc_{attribute}", "demographic_parity_difference_{attribute}"),
        *lower("equalized_odds_difference_{attribute}"),
        *higher("lowest_p_rule"),
        *neither("needs_groups_to_decide"),
    )

    method: Method
    lambda_: list[float]
    rounds: int
    batch_size: int
    lr: float
    weight_decay: float
    adversary_hidden: list[int]
    adversary_batch_size: int
    adversary_lr: float
    pretraining_epochs: int
    p_rule: float
    validation_fraction: float

    def __post_init__(self) -> None:
        if not self.lambda_ or not all(0 <= value < inf for value in self.lambda_):
            raise ValueError(f"lambda: must be one number of at least 0 or one for each attribute, got {self.lambda_}")
        for name in ("rounds", "batch_size", "adversary_batch_size", "pretraining_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if any(width < 1 for width in self.adversary_hidden):
            raise ValueError(f"adversary_hidden: widths must be at least 1, got {self.adversary_hidden}")
        for name in ("lr", "adversary_lr"):
            if not (getattr(self, name) > 0 and isfinite(getattr(self, name))):
                raise ValueError(f"{name}: must be above 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < inf:
            raise ValueError(f"weight_decay: must be at least 0 and finite, got {self.weight_decay:g}")
        if not 0 <= self.p_rule <= 100:
            raise ValueError(f"p_rule: must be in percent, 0 to 100, got {self.p_rule:g}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction: must be between 0 and 1, got {self.validation_fraction}")

    def __call__(self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer) -> None:
        """Two rows, `baseline` and `debiased`, then the checks and the pictures."""
        with naming("trainer"):
            trainer.check(model)
        table = as_table(dataset.load(), context.record.choices["dataset"])
        game = self.game(table, trainer)
        train, validation = table.train.divide(self.validation_fraction, seed=0)
        check_groups(table, train, validation, table.test)
        held_out = table.derive(f"less validation={self.validation_fraction}", train=train)
        rows = (train, validation, table.test)
        network = context.trained(held_out, model, trainer).network
        before = ask(context, network, rows)
        self.measure(context, "baseline", before, self.adversary(context, game, table, before.validation), table)

        if self.method is Method.thresholds:
            after = by_thresholds(before)
        else:
            if self.method is Method.adversarial:
                adversary = self.adversary(context, game, table, before.train)
                network = self.play(context, game, network, adversary, table, train, validation)
            else:
                network = context.trained(reweighed(held_out, context.seed), model, trainer).network
            after = ask(context, network, rows)
            context.record.artifact("debiased", network.state_dict())
        # a new adversary, fitted to the end, on rows that the game could not learn by heart
        self.measure(context, "debiased", after, self.adversary(context, game, table, after.validation), table)

        self.check(context, table, after)
        for number, attribute in enumerate(table.attributes):
            picture = densities(before.test, after.test, number, attribute, self.subject(context))
            context.record.plot(f"density_{attribute.name}", picture)

    def subject(self, context: Context) -> str:
        """What was made fair and how, for the titles of plots."""
        return f"{context.record.choices['model']} on {context.record.choices['dataset']}, {self.method.value}"

    def game(self, table: Table, trainer: Trainer) -> Game:
        """The game on `table`; a trainer that has few steps to an epoch has few rounds, too."""
        count = len(table.attributes)
        if len(self.lambda_) not in (1, count):
            names = ", ".join(attribute.name for attribute in table.attributes)
            raise InputError(f"task.lambda: must be one number or {count} ({names}), got {self.lambda_}")
        rounds = self.rounds
        if isinstance(trainer, GradientTrainer) and trainer.steps_per_epoch is not None:
            rounds = min(rounds, trainer.epochs * trainer.steps_per_epoch)
        return Game(
            strength=self.lambda_ * (count if len(self.lambda_) == 1 else 1),
            rounds=rounds,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            adversary_batch_size=self.adversary_batch_size,
            adversary_lr=self.adversary_lr,
        )

    def adversary(self, context: Context, game: Game, table: Table, part: Scored) -> Adversary:
        """A new adversary, fitted to what a classifier that stays as it is says of these rows."""
        device = context.hardware.device
        with own_randomness(context.seed):
            adversary = Adversary(self.adversary_hidden, [len(attribute.groups) for attribute in table.attributes])
            adversary.to(device)
            odds, sensitive = part.odds.float().to(device), part.sensitive.to(device)
            game.pretrain(adversary, odds, sensitive, self.pretraining_epochs)
        return adversary

    def play(
        self,
        context: Context,
        game: Game,
        network: nn.Module,
        adversary: Adversary,
        table: Table,
        train: Rows,
        validation: Rows,
    ) -> nn.Module:
        """The game from a trained classifier on, to its end; returns the classifier."""
        classifier = deepcopy(network).requires_grad_(True)
        path: list[Point] = []
        every = max(1, game.rounds // MEASURED)
        with own_randomness(context.seed):
            rows = train.on(context.hardware.device)
            losses = game.play(classifier, adversary, rows.inputs, rows.labels, rows.sensitive)
            bar = tqdm(losses, total=game.rounds, desc="debiasing", unit="round", disable=None)
            for number, loss in enumerate(bar, start=1):
                if number % every and number < game.rounds:
                    continue
                finite(loss)
                scored = score(context, classifier, validation)
                path.append(Point(number, scored.accuracy, scored.p_rules))
        names = [attribute.name for attribute in table.attributes]
        context.record.plot("path", training_path(path, names, self.p_rule, self.subject(context)))
        return classifier.eval().requires_grad_(False)

    def check(self, context: Context, table: Table, after: Stage) -> None:
        """Whether the debiased classifier is as fair as was wanted, on the rows that it was chosen by."""
        rules = after.validation.p_rules
        figure = ", ".join(f"{a.name} {value:.1f}" for a, value in zip(table.attributes, rules, strict=True))
        name = f"p-rules are at least {self.p_rule:g} on validation rows"
        context.record.check(name, min(rules) >= self.p_rule, figure)

    def measure(self, context: Context, name: str, stage: Stage, adversary: Adversary, table: Table) -> None:
        """The row of one stage, all of it on test rows."""
        test = stage.test
        with torch.no_grad():
            guesses = [guess.cpu() for guess in adversary(test.odds.float().to(context.hardware.device))]
        columns: dict[str, Any] = {
            **proportion("accuracy", int(test.right.sum()), len(test.labels)),
            "roc_auc": test.roc_auc,
        }
        aucs = adversary_aucs(guesses, test.sensitive)
        for attribute, group, auc in zip(table.attributes, test.sensitive.T, aucs, strict=True):
            low, high = p_rule_interval(test.selected, group, context.seed)
            columns |= {
                f"p_rule_{attribute.name}": p_rule(test.selected, group),
                f"p_rule_{attribute.name}_ci_low": low,
                f"p_rule_{attribute.name}_ci_high": high,
                f"adversary_auc_{attribute.name}": auc,
                f"demographic_parity_difference_{attribute.name}": demographic_parity_difference(test.selected, group),
                f"equalized_odds_difference_{attribute.name}": equalized_odds_difference(
                    test.selected, test.labels, group
                ),
            }
        context.record.headline("lowest_p_rule")
        method = "none" if name == "baseline" else self.method.value
        needs = method == Method.thresholds.value
        columns |= {"lowest_p_rule": min(test.p_rules), "needs_groups_to_decide": needs}
        context.record.metrics({"stage": name, "method": method}, **columns)
        rules = ", ".join(f"p-rule by {a.name} {columns[f'p_rule_{a.name}']:.1f}" for a in table.attributes)
        log.info("%s: accuracy %.4f, %s, n = %d", name, test.accuracy, rules, len(test.labels))
        if needs:
            log.info("thresholds need everyone's groups at the moment of the decision")


def as_table(data: Dataset, name: str) -> Table:
    """`data`, which must be a table with sensitive columns."""
    if not isinstance(data, Table):
        raise InputError(f"dataset={name}: task=debias needs a table with sensitive columns; take census, adult or csv")
    if not data.attributes:
        raise InputError("dataset.sensitive: task=debias needs at least one column, e.g. [race,sex]")
    return data


def check_groups(table: Table, *parts: Rows) -> None:
    """Every part needs two groups of each attribute, or nothing can be compared."""
    for part in parts:
        if not len(part):
            raise InputError("task.validation_fraction: leaves no rows on one side; take another share")
        for attribute, group in zip(table.attributes, part.sensitive.T, strict=True):
            if len(torch.unique(group)) < 2:
                only = attribute.groups[int(group[0])]
                raise InputError(
                    f"dataset: {len(part)} rows hold {only!r} alone of the groups in {attribute.name!r}; take more "
                    "rows (dataset.limit) or another split"
                )


def score(context: Context, network: nn.Module, rows: Rows) -> Scored:
    """What `network` says of `rows`."""
    answers = predict(network, rows, context.hardware)
    return Scored(log_odds(answers.logits.double()), answers.labels, rows.sensitive.cpu())


def ask(context: Context, network: nn.Module, parts: tuple[Rows, Rows, Rows]) -> Stage:
    """What `network` says of training, validation and test rows."""
    train, validation, test = (score(context, network, rows) for rows in parts)
    return Stage(train, validation, test)


def reweighed(table: Table, seed: int) -> Table:
    """The same table with training rows drawn by the weights of all attributes' groups together."""
    weights = reweighing(table.train.labels, crossed(table.train.sensitive))
    drawn = resample(weights, torch.Generator().manual_seed(seed))
    return table.derive(f"reweighed, seed={seed}", train=table.train.subset(drawn))


def by_thresholds(before: Stage) -> Stage:
    """The classifier with a threshold for each combination of groups, chosen on validation rows."""
    parts = (before.train, before.validation, before.test)
    groups = torch.split(crossed(torch.cat([part.sensitive for part in parts])), [len(part.labels) for part in parts])
    cuts = parity_thresholds(before.validation.odds, before.validation.labels, groups[1])
    train, validation, test = (
        replace(part, odds=shifted(part.odds, group, cuts)) for part, group in zip(parts, groups, strict=True)
    )
    return Stage(train, validation, test)
