"""task=debias: group fairness of a classifier before and after debiasing, and the cost in accuracy."""

import logging
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import nn

from trustml_cli.data.dataset import DatasetSource
from trustml_cli.data.table import Rows, Table
from trustml_cli.fairness.adversarial import AdversarialDebiasing, Adversary
from trustml_cli.fairness.constraint import Constraint
from trustml_cli.fairness.guesses import guesses_by_boosting, guesses_by_score
from trustml_cli.fairness.measure import Scored, lowest_p_rule_interval
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.plots.fairness import densities, groups_of, training_path
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.debias_games import Games
from trustml_cli.tasks.debias_rows import as_table, check_groups, choosing_rows, reweighed
from trustml_cli.tasks.debiasing import (
    Guesses,
    Stage,
    ask,
    by_thresholds,
    check_fairness,
    not_comparable,
    out_of_fold,
    row,
    rows_by_group,
    trade_off,
    with_ends,
    within_labels,
)
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)


class Method(Enum):
    """The debiasing method."""

    adversarial = "adversarial"
    """Adversarial debiasing: an adversary predicts the groups from the classifier's output (Zhang et al. 2018)."""
    reweighing = "reweighing"
    """Training on rows resampled so that label and groups are independent (Kamiran and Calders 2012)."""
    thresholds = "thresholds"
    """One or more thresholds for each group; needs the groups to decide."""


@dataclass(frozen=True, kw_only=True)
class Debias:
    """Train a classifier, then debias it by `method` for the goal `constraint`; reweighing has demographic parity only.

    `lambda` is the adversary's weight for each sensitive attribute, in the order of the data set; a single number
    holds for all. It is multiplied by one of `lambda_factors`; of several, cross-validation with `folds` folds of
    training rows chooses the one with the highest accuracy of those that reach the goal. With `cross_fitting` folds,
    the adversary learns the probabilities of the groups given the features, predicted from the other folds, in place
    of each row's groups, which the classifier memorises. `rounds`, `batch_size`, `lr`, `weight_decay`,
    `adversary_batch_size` and `adversary_lr` are those of the adversarial training. The adversary is pretrained for
    `pretraining_epochs` epochs. The result is the mean of the log-odds of `games`, each with the mean of its weights
    over the share `averaged` of the rounds, the last ones.

    For each measurement a new adversary is trained until it has converged, for `measuring_epochs` epochs at most. The
    share `validation_fraction` of the training rows is held out: on them the adversarial training is monitored,
    thresholds are chosen (on one half), and measuring adversaries are trained. With `folds`, thresholds are chosen on
    training rows instead, each scored by a classifier that was trained on the other folds. A check tests that every
    p-rule reaches `p_rule` percent on validation rows by which nothing was chosen; for the other constraints, that no
    difference exceeds `equalized_odds_difference`.
    """

    columns: ClassVar[Columns] = (
        *conditions("stage", "method", "constraint"),
        *logged(higher("accuracy")),
        *higher("roc_auc"),
        *logged(higher("p_rule_{attribute}")),
        *lower("adversary_auc_{attribute}", "demographic_parity_difference_{attribute}"),
        # NaN where groups cannot be compared
        *sometimes(lower("equalized_odds_difference_{attribute}", "equal_opportunity_difference_{attribute}")),
        *sometimes(lower("label_adversary_auc_{attribute}")),  # for goals within labels
        *lower("score_auc_{attribute}", "network_auc_{attribute}", "boosting_auc_{attribute}"),
        *sometimes(headline(lower("largest_{goal}_difference"))),
        *headline(higher("lowest_p_rule")),
        *neither("needs_groups_to_decide", "drawn_decisions"),
    )

    method: Method
    constraint: Constraint
    lambda_: list[float]
    lambda_factors: list[float]
    folds: int
    games: int
    cross_fitting: int
    rounds: int
    averaged: float
    batch_size: int
    lr: float
    weight_decay: float
    adversary_hidden: list[int]
    adversary_batch_size: int
    adversary_lr: float
    pretraining_epochs: int
    measuring_epochs: int
    p_rule: float
    equalized_odds_difference: float
    validation_fraction: float

    def __post_init__(self) -> None:
        if not self.lambda_ or not all(0 <= value < inf for value in self.lambda_):
            raise ValueError(f"lambda: must be one number of at least 0 or one for each attribute, got {self.lambda_}")
        if not self.lambda_factors or not all(0 < value < inf for value in self.lambda_factors):
            raise ValueError(f"lambda_factors: must be one or more numbers above 0, got {self.lambda_factors}")
        if self.folds != 0 and self.folds < 2:
            raise ValueError(f"folds: must be 0 or at least 2, got {self.folds}")
        if self.folds == 0 and len(self.lambda_factors) > 1:
            raise ValueError("folds: must be at least 2 to choose one of several lambda_factors, got 0")
        if self.cross_fitting != 0 and self.cross_fitting < 2:
            raise ValueError(f"cross_fitting: must be 0 or at least 2, got {self.cross_fitting}")
        require(self, "games", "rounds", "batch_size", "adversary_batch_size", at_least=1)
        require(self, "pretraining_epochs", "measuring_epochs", at_least=1)
        require(self, "averaged", at_least=0, at_most=1)
        if self.method is Method.reweighing and self.constraint is not Constraint.demographic_parity:
            raise ValueError(
                f"constraint: reweighing is for demographic_parity; use task.method=adversarial or thresholds for "
                f"{self.constraint.value}"
            )
        if any(width < 1 for width in self.adversary_hidden):
            raise ValueError(f"adversary_hidden: widths must be at least 1, got {self.adversary_hidden}")
        require(self, "lr", "adversary_lr", above=0)
        require(self, "weight_decay", at_least=0)
        require(self, "p_rule", at_least=0, at_most=100)
        if not 0 <= self.equalized_odds_difference <= 1:
            value = self.equalized_odds_difference
            raise ValueError(f"equalized_odds_difference: must be in [0, 1], got {value:g}")
        require(self, "validation_fraction", above=0, below=1)

    def __call__(self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer) -> None:
        """Write two rows, `baseline` and `debiased`, then the checks and the plots."""
        if trainer.private:
            raise InputError("trainer: debiasing learns from rows without noise, and dp_sgd promises it; use default")
        table = as_table(context.load(dataset), context.record.choices["dataset"])
        game = self.game(table, trainer)
        held_out, validation = table.split_validation(self.validation_fraction, seed=0)
        rows = (held_out.train, validation, held_out.test)
        check_groups(table, self.constraint, *rows)
        thresholds = self.method is Method.thresholds
        chosen, judging = (
            choosing_rows(held_out, validation, self.constraint, self.folds) if thresholds else (None, None)
        )
        network = context.train_or_load(context.spec(held_out, model, trainer), stage="baseline").network
        before = ask(context, network, rows)
        self.measure(context, "baseline", before, game, table)

        path: Figure | None = None
        if judging is not None:
            if chosen is None:
                known = out_of_fold(context, held_out, self.folds, model, trainer)
            else:
                known = before.validation.subset(chosen)
            after = by_thresholds(before, self.constraint, known, judging, context.seed)
        else:
            if self.method is Method.adversarial:
                games = self.games_of(game)
                network, path = self.played(context, games, network, held_out, validation, model, trainer)
            else:
                spec = context.spec(reweighed(held_out, context.seed), model, trainer)
                network = context.train_or_load(spec, stage="debiased").network
            after = ask(context, network, rows)
            context.record.artifact("debiased", network.state_dict())
        self.measure(context, "debiased", after, game, table)

        self.check(context, table, after)
        self.show(context, table, before.test, after.test)
        if path is not None:
            context.record.plot("path", path)
        context.plot_curves()

    def show(self, context: Context, table: Table, before: Scored, after: Scored) -> None:
        """Write rates and calibration by group, and plot them and the densities of the probabilities."""
        # thresholds change decisions, not probabilities
        probability = (before if self.method is Method.thresholds else after).probability
        stages = {"baseline": (before, before.probability), "debiased": (after, probability)}
        groups = rows_by_group(table, stages, context.seed)
        context.record.table("groups", groups)
        subject = self.subject(context)
        for number, attribute in enumerate(table.attributes):
            aucs = [each[f"adversary_auc_{attribute.name}"] for each in context.record.rows]
            debiased = [row for row in groups if (row["stage"], row["attribute"]) == ("debiased", attribute.name)]
            context.remark(trade_off(debiased, after, number))
            figure = densities(before, after, number, attribute, subject, aucs, self.constraint.measure)
            context.record.plot(f"density_{attribute.name}", figure)
            context.record.plot(f"groups_{attribute.name}", groups_of(stages, groups, number, attribute, subject))

    def subject(self, context: Context) -> str:
        """Model, data set and method, for the titles of plots."""
        return f"{context.record.subject}, {self.method.value} for {self.constraint.value.replace('_', ' ')}"

    def game(self, table: Table, trainer: Trainer) -> AdversarialDebiasing:
        """Adversarial debiasing for `table`; a trainer's `steps_per_epoch` times its epochs limits the rounds.

        Raises `InputError` where the number of lambdas does not fit the sensitive attributes.
        """
        count = len(table.attributes)
        if len(self.lambda_) not in (1, count):
            names = ", ".join(attribute.name for attribute in table.attributes)
            raise InputError(f"task.lambda: must be one number or {count} ({names}), got {self.lambda_}")
        rounds = self.rounds
        if isinstance(trainer, GradientTrainer) and trainer.steps_per_epoch is not None:
            rounds = min(rounds, trainer.epochs * trainer.steps_per_epoch)
        return AdversarialDebiasing(
            strength=self.lambda_ * (count if len(self.lambda_) == 1 else 1),
            rounds=rounds,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            adversary_batch_size=self.adversary_batch_size,
            adversary_lr=self.adversary_lr,
            averaged=self.averaged,
        )

    def games_of(self, game: AdversarialDebiasing) -> Games:
        """The games, before lambda is chosen."""
        return Games(
            game=game,
            count=self.games,
            hidden=self.adversary_hidden,
            constraint=self.constraint,
            pretraining_epochs=self.pretraining_epochs,
            cross_fitting=self.cross_fitting,
        )

    def played(
        self, context: Context, games: Games, network: nn.Module, held_out: Table, validation: Rows, model: Model,
        trainer: Trainer,
    ) -> tuple[nn.Module, Figure]:  # fmt: skip
        """The mean of the games with the lambda that is chosen, and the plot of the games on validation rows."""
        games = games.chosen(context, self.lambda_factors, self.folds, self.wanted, held_out, model, trainer)
        network, path = games.play(context, network, held_out, validation)
        names = [attribute.name for attribute in held_out.attributes]
        figure = training_path(path, names, self.constraint.measure, self.wanted, self.subject(context))
        return network, figure

    @property
    def wanted(self) -> float:
        """The bound of the metric of the goal."""
        return self.p_rule if self.constraint is Constraint.demographic_parity else self.equalized_odds_difference

    def check(self, context: Context, table: Table, after: Stage) -> None:
        """Check that the debiased classifier meets the fairness criterion and is not constant."""
        check_fairness(context, table, after, self.constraint, self.wanted)
        share = after.test.selected.double().mean().item()
        context.record.check(
            "not everybody is decided alike", 0 < share < 1, f"{in_percent(share)} of test rows selected"
        )
        if lacking := not_comparable(table, after.test):
            context.record.check("equalized odds compare all groups of the test rows", False, "; ".join(lacking))

    def measure(self, context: Context, name: str, stage: Stage, game: AdversarialDebiasing, table: Table) -> None:
        """Write the row of one stage, measured on test rows; adversaries are fitted to validation rows."""
        goal = self.constraint
        columns = row(table, stage.test, self.guesses(context, game, table, stage), context.seed)
        columns |= within_labels(table, stage, goal, context.seed)
        method = "none" if name == "baseline" else self.method.value
        needs = method == Method.thresholds.value
        ends = lowest_p_rule_interval(stage.test.selected, table.test.sensitive, context.seed)
        columns |= with_ends("lowest_p_rule", min(stage.test.p_rules), ends)
        columns |= {"lowest_p_rule_n": len(stage.test.selected), "needs_groups_to_decide": needs}
        columns |= {"drawn_decisions": stage.drawn}
        constraint = "none" if name == "baseline" else goal.value
        context.record.metrics({"stage": name, "method": method, "constraint": constraint}, **columns)
        for lacking in not_comparable(table, stage.test):
            log.warning("equalized odds: %s among the test rows, and does not count", lacking)
        if needs:
            log.info("thresholds need everyone's groups at the moment of the decision")
        if stage.drawn:
            log.info("%s of the decisions are random: repeated, some of them would differ", in_percent(stage.drawn))

    def guesses(self, context: Context, game: AdversarialDebiasing, table: Table, stage: Stage) -> Guesses:
        """What adversaries that are fitted to validation rows predict of the groups of the test rows."""
        groups = [len(attribute.groups) for attribute in table.attributes]
        device = context.hardware.device
        part = stage.validation
        # a new adversary, trained to convergence, on rows that the adversarial training did not use
        with seeded(context.seed):
            network = Adversary(self.adversary_hidden, groups).to(device)
            rows = (part.odds.float().to(device), part.labels.to(device), part.sensitive.to(device))
            if game.converge(network, *rows, self.measuring_epochs) == self.measuring_epochs:
                log.info(
                    "the measuring adversary had not converged after task.measuring_epochs=%d", self.measuring_epochs
                )
        network.cpu()
        with torch.no_grad():
            guesses = network(stage.test.odds.float(), stage.test.labels)
        return {
            "score": guesses_by_score(stage.validation, stage.test, groups),
            "network": [guess.double().softmax(1) for guess in guesses],
            "boosting": guesses_by_boosting(stage.validation, stage.test, groups, context.seed),
        }
