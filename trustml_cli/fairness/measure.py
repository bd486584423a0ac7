"""Evaluation of every stage of debiasing, common to all methods."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from trustml_cli.fairness.metrics import group_metrics
from trustml_cli.metrics.bootstrap import (
    RESAMPLES,
    by_value,
    drawn_again,
    percentile_interval,
    roc_area,
    share_interval,
)


@dataclass(frozen=True)
class Scored:
    """Rows with a classifier's log-odds of the favourable class, float64 [N]; a row is selected if they are above 0.

    `labels` are 0 or 1, [N], and `sensitive` the groups by attribute, int64 [N, A].
    """

    odds: Tensor
    labels: Tensor
    sensitive: Tensor

    def subset(self, indices: Tensor) -> "Scored":
        """The rows at `indices`, int64 [M]."""
        return Scored(self.odds[indices], self.labels[indices], self.sensitive[indices])

    def of_label(self, label: int) -> "Scored":
        """The rows with this label."""
        return self.subset((self.labels == label).nonzero()[:, 0])

    @property
    def selected(self) -> Tensor:
        """The decisions, bool [N]."""
        return self.odds > 0

    @property
    def probability(self) -> Tensor:
        """The probability of the favourable class, [N], in [0, 1]."""
        return self.odds.sigmoid()

    @property
    def right(self) -> Tensor:
        """Whether the decision equals the label, bool [N]."""
        return self.selected == (self.labels == 1)

    @property
    def accuracy(self) -> float:
        """The share of correct decisions."""
        return self.right.double().mean().item()

    @property
    def roc_auc(self) -> float:
        """The probability that a row of the favourable class scores above one of the other; nan where one is absent."""
        return area(self.labels == 1, self.odds)

    @property
    def p_rules(self) -> list[float]:
        """The p-rule in percent for each attribute."""
        return self.fairness("p_rule")

    def fairness(self, measure: str) -> list[float]:
        """The one of `group_metrics` called `measure`, for each attribute."""
        return [group_metrics(self.selected, self.labels, group)[measure] for group in self.sensitive.T]


@dataclass(frozen=True)
class Point:
    """The state of the training after some rounds, on held-out rows: one fairness metric by attribute."""

    round: int
    accuracy: float
    fairness: Sequence[float]


def adversary_aucs(guesses: Sequence[Tensor], sensitive: Tensor) -> list[float]:
    """ROC AUC of the predicted groups, for each attribute: 0.5 is chance, 1 is perfect separation.

    `guesses` hold for each attribute a score of each group, on any scale, [N, G]; `sensitive` are the groups, int64
    [N, A]. With more than two groups, the result is the mean over the one-vs-rest AUCs of all groups that have rows.
    """
    areas = []
    for guess, group in zip(guesses, sensitive.T, strict=True):
        each = [area(group == number, guess[:, number]) for number in torch.unique(group).tolist()]
        areas.append(sum(each) / len(each))
    return areas


def area_interval(guess: Tensor, group: Tensor, seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of one of `adversary_aucs`, resampling the rows within each group."""
    numbers, sample = torch.unique(group, return_inverse=True)
    shown = numbers[:1] if len(numbers) == 2 else numbers  # with two groups, both one-vs-rest AUCs are equal
    members = sample.cpu().numpy()
    orders = [by_value(guess[:, number].double().cpu().numpy()) for number in shown.tolist()]
    parts = []
    for often in drawn_again(members, seed):
        areas = []
        for place, (order, begins) in enumerate(orders):
            ranked = often[:, order]
            every = np.add.reduceat(ranked, begins, axis=1)
            positives = np.add.reduceat(ranked * (members[order] == place), begins, axis=1)
            areas.append(roc_area(every - positives, positives, (every - positives).cumsum(1)))
        parts.append(np.mean(areas, axis=0))
    (value,) = adversary_aucs([guess], group[:, None])
    return share_interval(value, np.concatenate(parts), int(np.bincount(members).min()))


def area(positive: Tensor, scores: Tensor) -> float:
    """Area under the ROC curve of `scores` [N] for `positive`, bool [N]; nan where all or none are."""
    if positive.all() or not positive.any():
        return float("nan")
    return float(roc_auc_score(positive.cpu().numpy(), scores.detach().cpu().numpy()))


def lowest_p_rule_interval(selected: Tensor, sensitive: Tensor, seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of the lowest p-rule (percent) over the attributes `sensitive` [N, A].

    By the percentile method (Efron 1979), as `group_intervals`, from the counts by decision and by all groups of a row.
    """
    cells, counts = torch.unique(torch.column_stack((sensitive, selected.long())), dim=0, return_counts=True)
    *attributes, decisions = cells.numpy().T
    draws = np.random.default_rng(seed).multinomial(len(selected), counts.numpy() / len(selected), size=RESAMPLES)
    rules = []
    for groups in attributes:
        own = [groups == number for number in np.unique(groups)]
        with np.errstate(invalid="ignore"):  # a resample may lack a group, or select nobody
            rates = np.stack([draws[:, of & (decisions == 1)].sum(1) / draws[:, of].sum(1) for of in own])
            rules.append(100 * rates.min(0) / rates.max(0))
    return percentile_interval(np.min(rules, axis=0))


def group_intervals(selected: Tensor, labels: Tensor, group: Tensor, seed: int) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of `group_metrics` (percentile method, Efron 1979).

    They depend on the rows only through the counts by group, label and decision, which are multinomial under
    resampling. The differences are absolute values, hence never below 0: where groups are treated alike, the interval
    of a difference lies above the true value.
    """
    numbers = torch.unique(group).tolist()
    cells = [
        [[int(((group == number) & (labels == truth) & (selected == yes)).sum()) for yes in (0, 1)] for truth in (0, 1)]
        for number in numbers
    ]
    shares = np.array(cells).ravel() / len(group)
    draws = np.random.default_rng(seed).multinomial(len(group), shares, size=RESAMPLES)
    draws = draws.reshape(RESAMPLES, len(numbers), 2, 2)
    with np.errstate(invalid="ignore"):  # a resample may lack a group, or select nobody
        rates = draws[..., 1].sum(2) / draws.sum((2, 3))
        by_label = draws[..., 1] / draws.sum(3)
        rules = 100 * rates.min(1) / rates.max(1)
    known = np.isfinite(by_label)
    spread = np.where(known, by_label, -np.inf).max(1) - np.where(known, by_label, np.inf).min(1)
    spread[known.sum(1) < 2] = np.nan
    return {
        "p_rule": percentile_interval(rules),
        "demographic_parity_difference": percentile_interval(rates.max(1) - rates.min(1)),
        "equalized_odds_difference": percentile_interval(spread.max(1)),  # nan if either is
        "equal_opportunity_difference": percentile_interval(spread[:, 1]),
    }
