"""The adversarial games of task=debias, and the strength of their adversary, chosen by cross-validation."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf, isfinite

import torch
from torch import Tensor, nn

from trustml_cli.data.table import Rows, Table, fold_numbers
from trustml_cli.fairness.adversarial import AdversarialDebiasing, Adversary
from trustml_cli.fairness.constraint import Constraint
from trustml_cli.fairness.expected_groups import expected_groups
from trustml_cli.fairness.measure import Point, Scored
from trustml_cli.models.mean_logits import MeanLogits
from trustml_cli.models.model import Model
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.debiasing import fold_networks, score, together
from trustml_cli.training.trainer import Trainer, finite

log = logging.getLogger(__name__)

MEASURED = 60  # number of evaluations on validation rows during adversarial training


@dataclass(frozen=True, kw_only=True)
class Games:
    """`count` games from copies of one classifier; their adversaries have the widths `hidden`.

    With `cross_fitting` folds, adversaries learn the probabilities of the groups given the features, with 0 the groups.
    """

    game: AdversarialDebiasing
    count: int
    hidden: Sequence[int]
    constraint: Constraint
    pretraining_epochs: int
    cross_fitting: int

    def times(self, factor: float) -> "Games":
        """The same with every lambda multiplied by `factor`."""
        return replace(self, game=replace(self.game, strength=[factor * value for value in self.game.strength]))

    def targets(self, table: Table, rows: Rows) -> Tensor:
        """What the adversary learns of the training `rows`: groups or their probabilities, see `Adversary.losses`."""
        if not self.cross_fitting:
            return rows.sensitive
        # within labels, the groups' probabilities are those given the label
        given = [rows.labels[:, None].to(rows.inputs)] if self.constraint.labels else []
        features = torch.cat([rows.inputs, *given], 1)
        groups = [len(attribute.groups) for attribute in table.attributes]
        fold = fold_numbers(table.train.strata, self.cross_fitting, seed=2)
        return expected_groups(features, rows.sensitive, groups, fold)

    def play(
        self, context: Context, network: nn.Module, table: Table, watched: Rows | None = None
    ) -> tuple[nn.Module, list[Point]]:
        """Play on the table's training rows; returns the mean of the games, and how it did on the rows `watched`."""
        path: list[Point] = []
        every = max(1, self.game.rounds // MEASURED)
        device = context.hardware.device
        rows = table.train.on(device)
        parts = (rows.labels, self.targets(table, rows))
        with seeded(context.seed):
            groups = [len(attribute.groups) for attribute in table.attributes]
            adversary = Adversary(self.hidden, groups, self.constraint).to(device)
            odds = score(context, network, table.train).odds.float().to(device)
            self.game.pretrain(adversary, odds, *parts, self.pretraining_epochs)
        with seeded(context.seed):
            pairs = [(deepcopy(network).requires_grad_(True), deepcopy(adversary)) for _ in range(self.count)]
            games = [self.game.play(classifier, own, rows.inputs, *parts) for classifier, own in pairs]
            bar = Progress(zip(*games, strict=True), total=self.game.rounds, desc="debiasing", unit="round")
            for number, states in enumerate(bar, start=1):
                if number % every and number < self.game.rounds:
                    continue
                for loss, _ in states:
                    finite(loss)
                classifiers = [classifier for _, classifier in states]
                mean = MeanLogits(classifiers) if self.count > 1 else classifiers[0]
                if watched is not None:
                    scored = score(context, mean, watched)
                    path.append(Point(number, scored.accuracy, scored.fairness(self.constraint.measure)))
        return mean.eval().requires_grad_(False), path

    def chosen(
        self, context: Context, factors: Sequence[float], folds: int, wanted: float, table: Table, model: Model,
        trainer: Trainer,
    ) -> "Games":  # fmt: skip
        """These games with lambda times one of `factors`: of several, the `best` by cross-validation on training rows.

        For each of the `folds`, the classifier is trained and one game for each factor is played on the other rows.
        """
        if len(factors) == 1:
            return self.times(factors[0])
        parts: dict[float, list[Scored]] = {factor: [] for factor in factors}
        for kept, aside, network in fold_networks(context, table, folds, model, trainer):
            for factor in factors:
                debiased, _ = replace(self.times(factor), count=1).play(context, network, kept)
                parts[factor].append(score(context, debiased, aside))
        pooled = {factor: together(each) for factor, each in parts.items()}
        factor = best(pooled, self.constraint, wanted)
        self.tell(context, table, pooled, factor, folds)
        return self.times(factor)

    def tell(self, context: Context, table: Table, pooled: Mapping[float, Scored], chosen: float, folds: int) -> None:
        """Write cross_validation.csv, a row for each factor, and say which lambda was chosen."""
        rows = []
        for factor, scored in pooled.items():
            strengths = self.times(factor).game.strength
            row = {"factor": factor, "chosen": factor == chosen, "n": len(scored.labels), "accuracy": scored.accuracy}
            values = scored.fairness(self.constraint.measure)
            for attribute, strength, value in zip(table.attributes, strengths, values, strict=True):
                row |= {f"lambda_{attribute.name}": strength, f"{self.constraint.measure}_{attribute.name}": value}
            rows.append(row)
        context.record.table("cross_validation", rows)
        lambdas = ", ".join(f"{value:g}" for value in self.times(chosen).game.strength)
        context.remark(
            f"lambda: {lambdas} ({chosen:g} times task.lambda) was chosen by cross-validation with {folds} folds of "
            f"{len(scored.labels):,} training rows"
        )


def best(pooled: Mapping[float, Scored], constraint: Constraint, wanted: float) -> float:
    """The factor with the highest accuracy of those that reach the bound `wanted` for every attribute.

    Without one, the factor whose worst attribute comes closest.
    """
    sign = 1 if constraint is Constraint.demographic_parity else -1
    worst = {}
    for factor, scored in pooled.items():
        values = [sign * value for value in scored.fairness(constraint.measure)]
        worst[factor] = min(values) if all(map(isfinite, values)) else -inf
    reached = [factor for factor in pooled if worst[factor] >= sign * wanted]
    return max(reached, key=lambda factor: pooled[factor].accuracy) if reached else max(pooled, key=worst.__getitem__)
