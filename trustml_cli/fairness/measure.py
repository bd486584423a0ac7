"""What every stage of debiasing is judged by, whichever method made it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from trustml_cli.fairness.metrics import p_rule

RESAMPLES = 2000  # of the rows, for an interval


@dataclass(frozen=True)
class Scored:
    """Rows with what a classifier says of them: log-odds of the favourable class, float64 [N], above 0 if selected.

    `labels` are 0 or 1, [N], and `sensitive` the groups by attribute, int64 [N, A].
    """

    odds: Tensor
    labels: Tensor
    sensitive: Tensor

    @property
    def selected(self) -> Tensor:
        """The decisions, bool [N]."""
        return self.odds > 0

    @property
    def probability(self) -> Tensor:
        """Of the favourable class, [N], in [0, 1]."""
        return self.odds.sigmoid()

    @property
    def right(self) -> Tensor:
        """Whether the decision is the label, bool [N]."""
        return self.selected == (self.labels == 1)

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return self.right.double().mean().item()

    @property
    def roc_auc(self) -> float:
        """The chance that a row of the favourable class scores above one of the other; nan where one is absent."""
        return area(self.labels == 1, self.odds)

    @property
    def p_rules(self) -> list[float]:
        """The p-rule in percent for each attribute."""
        return [p_rule(self.selected, group) for group in self.sensitive.T]


@dataclass(frozen=True)
class Point:
    """Where a game stands after some rounds, on rows that are not trained on; p-rules in percent by attribute."""

    round: int
    accuracy: float
    p_rules: Sequence[float]


def adversary_aucs(guesses: Sequence[Tensor], sensitive: Tensor) -> list[float]:
    """How well groups are told apart, for each attribute: 0.5 is guessing, 1 is certainty.

    `guesses` hold logits [N, G] for each attribute; `sensitive` are the groups, int64 [N, A]. With more than two
    groups, it is the mean over each group against the others; groups without rows do not count.
    """
    areas = []
    for guess, group in zip(guesses, sensitive.T, strict=True):
        likely = guess.double().softmax(1)
        each = [area(group == number, likely[:, number]) for number in torch.unique(group).tolist()]
        areas.append(sum(each) / len(each))
    return areas


def area(positive: Tensor, scores: Tensor) -> float:
    """Area under the ROC curve of `scores` [N] for `positive`, bool [N]; nan where all or none are."""
    if positive.all() or not positive.any():
        return float("nan")
    return float(roc_auc_score(positive.cpu().numpy(), scores.detach().cpu().numpy()))


def p_rule_interval(selected: Tensor, group: Tensor, seed: int) -> tuple[float, float]:
    """The 95 % interval of the p-rule: quantiles over draws of as many rows with replacement (Efron 1979).

    The p-rule depends on the rows only through their numbers in each group, selected and not, and these numbers are
    multinomial in such draws.
    """
    cells = [int(((group == number) & (selected == yes)).sum()) for number in torch.unique(group) for yes in (0, 1)]
    draws = np.random.default_rng(seed).multinomial(len(group), np.array(cells) / len(group), size=RESAMPLES)
    passed_over, chosen = draws[:, 0::2], draws[:, 1::2]
    with np.errstate(invalid="ignore"):  # a draw may lack a group, or select nobody
        rates = chosen / (passed_over + chosen)
        rules = 100 * rates.min(axis=1) / rates.max(axis=1)
    rules = rules[np.isfinite(rules)]
    low, high = np.quantile(rules, [0.025, 0.975]) if len(rules) else (np.nan, np.nan)
    return float(low), float(high)
