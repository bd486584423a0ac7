"""Errors of predicted probabilities: calibration errors, Brier score and negative log-likelihood, with intervals.

A calibration error sums |observed frequency − predicted probability| over groups of predictions, weighted by their
size. It is positive for a perfect model too, because frequencies vary; `perfect_errors` says by how much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from trustml_cli.metrics.bootstrap import LEVELS, RESAMPLES, drawn_again
from trustml_cli.metrics.intervals import with_interval

BINS = 15

Floats = NDArray[np.float64]


def equal_width(probability: Tensor, bins: int = BINS) -> Tensor:
    """The number of the bin of each probability in [0, 1]: int64; bins of equal width, closed on the right."""
    return (probability * bins).ceil().long().sub(1).clamp(0, bins - 1)


def equal_mass(probability: Tensor, bins: int = BINS) -> Tensor:
    """The number of the bin of each probability [N]: int64; bins of equal size in the order of the probabilities."""
    ranks = torch.empty(len(probability), dtype=torch.long)
    ranks[probability.argsort(stable=True)] = torch.arange(len(probability))
    return ranks * bins // len(probability)


@dataclass(frozen=True)
class Gaps:
    """Differences between outcome and probability, in groups: a sparse matrix [N, groups]; `scale` is a divisor.

    The error of examples with weights w [..., N] is Σ over groups |Σ over examples w·gap| / Σ w / `scale`.
    """

    by_group: Any
    scale: int = 1

    def errors(self, weights: Floats) -> Floats:
        """The errors [draws] of the examples with these weights [draws, N]."""
        found: Floats = np.abs(weights @ self.by_group).sum(1) / weights.sum(1) / self.scale
        return found

    @property
    def error(self) -> float:
        """The error of all examples, each with weight one, in [0, 1]."""
        return float(self.errors(np.ones((1, self.by_group.shape[0])))[0])


def in_groups(group: Tensor, gap: Tensor, groups: int) -> Any:
    """The sparse matrix [N, groups] of gaps [N, M], each in the column `group` [N, M] of its row."""
    rows = np.arange(len(gap)).repeat(gap.shape[1])
    return csr_array((gap.double().flatten().numpy(), (rows, group.flatten().numpy())), shape=(len(gap), groups))


def top_label(confidence: Tensor, correct: Tensor, bins: int = BINS, mass: bool = False) -> Gaps:
    """The gaps of the predicted classes, with `confidence` and whether it is `correct`, both [N].

    With bins of equal width their error is the expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv
    1706.04599), with bins of equal `mass` the adaptive one (Nixon et al. 2019, arXiv 1904.01685).
    """
    number = (equal_mass if mass else equal_width)(confidence, bins)
    return Gaps(in_groups(number[:, None], (correct.double() - confidence.double())[:, None], bins))


def classwise(probability: Tensor, labels: Tensor, bins: int = BINS) -> Gaps:
    """The gaps of all classes; their error is the mean over the K classes (Kull et al. 2019, arXiv 1910.12656).

    `probability` has shape [N, K] and `labels` [N].
    """
    classes = probability.shape[1]
    group = equal_width(probability, bins) + bins * torch.arange(classes)
    gap = torch.nn.functional.one_hot(labels, classes).double() - probability.double()
    return Gaps(in_groups(group, gap, bins * classes), classes)


def expected_calibration_error(confidence: Tensor, correct: Tensor, bins: int = BINS) -> float:
    """Mean |accuracy − confidence| over equal-width bins of confidence, weighted by their size, in [0, 1].

    `confidence` is the probability of the predicted class, in [0, 1], and `correct` whether the prediction is correct;
    both of shape [N]. Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599.
    """
    return top_label(confidence, correct, bins).error


def brier_scores(probability: Tensor, labels: Tensor) -> Tensor:
    """Σ over classes (probability − one-hot label)² of each example, in [0, 2]: float64 [N] (Brier 1950)."""
    wanted = torch.nn.functional.one_hot(labels, probability.shape[1])
    return (probability.double() - wanted).square().sum(1)


def perfect_errors(confidence: Tensor, seed: int, bins: int = BINS, draws: int = RESAMPLES) -> Floats:
    """Expected calibration errors [draws] of outcomes that have exactly the probability `confidence` [N]."""
    random, sure = np.random.default_rng(seed), confidence.double().numpy()
    one_hot = in_groups(equal_width(confidence, bins)[:, None], torch.ones(len(sure), 1), bins)
    found = []
    for rest in range(draws, 0, -32):
        gap = (random.random((min(32, rest), len(sure))) < sure) - sure
        found.append(np.abs(gap @ one_hot).sum(1) / len(sure))
    return np.concatenate(found)


def calibration_columns(logits: Tensor, labels: Tensor, seed: int, bins: int = BINS) -> dict[str, object]:
    """The columns nll, brier, ece, ece_adaptive, ece_classwise and ece_null, from logits [N, K] and labels [N].

    The intervals are basic bootstrap intervals (Davison and Hinkley 1997, section 5.2), which correct for the noise
    that resampling adds to a calibration error; the bins of a resample are those of the sample. `ece_null` is the mean
    `ece` of a perfect model with these confidences, and its interval holds 95 % of them.
    """
    logits = logits.double()
    probability = logits.softmax(1)
    confidence, predicted = probability.max(1)
    correct = predicted == labels
    gaps = {
        "ece": top_label(confidence, correct, bins),
        "ece_adaptive": top_label(confidence, correct, bins, mass=True),
        "ece_classwise": classwise(probability, labels, bins),
    }
    losses = -logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    scores = {"nll": losses, "brier": brier_scores(probability, labels)}
    return resampled_columns(scores, gaps, seed) | null_columns(confidence, seed, bins)


def calibration_error_columns(probability: Tensor, happened: Tensor, seed: int, bins: int = BINS) -> dict[str, object]:
    """The columns ece and ece_null of the `probability` of one event, and whether it `happened`, both [N].

    Intervals are those of `calibration_columns`.
    """
    gaps = {"ece": top_label(probability, happened, bins)}
    return resampled_columns({}, gaps, seed) | null_columns(probability, seed, bins)


def resampled_columns(scores: Mapping[str, Tensor], gaps: Mapping[str, Gaps], seed: int) -> dict[str, object]:
    """The columns of the means of `scores` [N] and of the errors of `gaps`, with basic bootstrap intervals."""
    n = next(iter(gaps.values())).by_group.shape[0]
    every = torch.stack(list(scores.values()), 1).double().numpy() if scores else np.empty((n, 0))
    drawn: dict[str, list[Floats]] = {name: [] for name in (*scores, *gaps)}
    for counts in drawn_again(np.zeros(n, dtype=np.int64), seed):
        weights = counts.astype(np.float64)
        means = weights @ every / n
        for name, values in zip(drawn, (*means.T, *(each.errors(weights) for each in gaps.values())), strict=True):
            drawn[name].append(values)
    values = dict(zip(drawn, (*every.mean(0), *(each.error for each in gaps.values())), strict=True))
    columns: dict[str, object] = {}
    for name, value in values.items():
        low, high = np.quantile(2 * value - np.concatenate(drawn[name]), LEVELS)
        columns |= around(name, float(value), (max(0.0, float(low)), float(high)), n)
    return columns


def null_columns(confidence: Tensor, seed: int, bins: int) -> dict[str, object]:
    """The columns of ece_null for these confidences [N]."""
    null = perfect_errors(confidence, seed, bins)
    low, high = np.quantile(null, LEVELS)
    return around("ece_null", float(null.mean()), (float(low), float(high)), len(confidence))


def around(name: str, value: float, ends: tuple[float, float], n: int) -> dict[str, object]:
    """The columns of one value; the interval is widened to contain it."""
    return with_interval(name, value, (min(ends[0], value), max(ends[1], value)), n)
