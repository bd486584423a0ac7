"""How well scores tell members from others, at low false-positive rates too (Carlini et al. 2022, arXiv 2112.03570)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trustml_cli.metrics.bootstrap import Counts, Floats, by_value, drawn_again, roc_area, share_interval

MEASURES = ("auc", "tpr_at_1_fpr", "tpr_at_0.1_fpr", "advantage")
RATES = {"tpr_at_1_fpr": 0.01, "tpr_at_0.1_fpr": 0.001}
SIDE = 0.0125  # four limits, of two rates in two directions, hold together in 95 % of the cases


@dataclass(frozen=True)
class Victim:
    """The scores of one victim's examples, float64 [N], and which of them it was trained on, bool [N]."""

    scores: Tensor
    member: Tensor


@dataclass(frozen=True)
class MembershipResult:
    """Means over the victims of one attack on n examples, with 95 % intervals.

    `values` and `intervals` are by name in `MEASURES`, `false_positives` the most that each rate in `RATES` allows.
    `epsilon_lower_bound` is the mean of `epsilon_bound`. `fpr` and `tpr` are the ROC curve: the mean true-positive rate
    at each false-positive rate.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    false_positives: Mapping[str, int]
    epsilon_lower_bound: float
    n: int
    fpr: list[float]
    tpr: list[float]


def evaluate(victims: Sequence[Victim], seed: int) -> MembershipResult:
    """Evaluate an attack on victims whose scores are for the same N examples.

    The intervals are from a bootstrap over the examples, with the networks as they are: an example is drawn again with
    its membership and scores for every victim.
    """
    ranked = [ranking(victim) for victim in victims]
    once = np.ones((1, len(victims[0].scores)), dtype=np.int64)
    values = {name: float(value[0]) for name, value in mean_measures(ranked, once).items()}
    whole = np.zeros(len(victims[0].scores), dtype=np.int64)
    parts = [mean_measures(ranked, often) for often in drawn_again(whole, seed, resamples=400)]
    draws = {name: np.concatenate([part[name] for part in parts]) for name in MEASURES}
    others = min(int((~victim.member).sum()) for victim in victims)
    smallest = min(others, *(int(victim.member.sum()) for victim in victims))
    grid = np.unique(np.concatenate([[0.0], np.arange(1, others + 1) / others]))
    return MembershipResult(
        values=values,
        intervals={name: share_interval(values[name], draws[name], smallest) for name in MEASURES},
        false_positives={name: int(rate * others) for name, rate in RATES.items()},
        epsilon_lower_bound=float(np.mean([epsilon_bound(victim) for victim in victims])),
        n=len(victims[0].scores),
        fpr=grid.tolist(),
        tpr=np.mean([tpr_at(*roc(*each, once), grid) for each in ranked], axis=0)[0].tolist(),
    )


def ranking(victim: Victim) -> tuple[Counts, NDArray[np.bool_], Counts]:
    """The order of the examples by descending score, their membership in it, and where each distinct score begins."""
    order, begins = by_value(-victim.scores.double().numpy())
    return order, victim.member.numpy()[order], begins


def roc(order: Counts, member: NDArray[np.bool_], begins: Counts, often: Counts) -> tuple[Counts, Counts]:
    """False and true positives with the threshold at each distinct score, descending, [draws, values] each.

    `often` [draws, N] are the multiplicities of the examples.
    """
    often = often[:, order]
    positives = often * member
    counts = (np.add.reduceat(part, begins, axis=1) for part in (often - positives, positives))
    false, true = (part.cumsum(1) for part in counts)
    return false, true


def mean_measures(ranked: Sequence[tuple[Counts, NDArray[np.bool_], Counts]], often: Counts) -> dict[str, Floats]:
    """`MEASURES` for each draw [draws], the means over the victims."""
    found: dict[str, list[Floats]] = {name: [] for name in MEASURES}
    for each in ranked:
        false, true = roc(*each, often)
        found["auc"].append(area(false, true))
        for name, rate in RATES.items():
            found[name].append(tpr_at(false, true, np.array([rate]))[:, 0])
        found["advantage"].append(np.maximum((true / true[:, -1:] - false / false[:, -1:]).max(1), 0))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def area(false: Counts, true: Counts) -> Floats:
    """P(a member scores above another example), ties counted half: the area under the ROC curve, [draws]."""
    steps = (np.diff(part, axis=1, prepend=0)[:, ::-1] for part in (false, true))  # ascending scores
    negatives, positives = steps
    return roc_area(negatives, positives, negatives.cumsum(1))


def tpr_at(false: Counts, true: Counts, rates: Floats) -> Floats:
    """The largest true-positive rate with at most each false-positive rate, [draws, rates]; 0 where none is."""
    allowed = np.floor(rates * false[:, -1:] * (1 + 1e-12))  # [draws, rates]
    before = np.stack([np.searchsorted(row, most, side="right") for row, most in zip(false, allowed, strict=True)])
    reached = np.take_along_axis(np.pad(true, ((0, 0), (1, 0))), before, axis=1)
    shares: Floats = reached / true[:, -1:]
    return shares


def epsilon_bound(victim: Victim) -> float:
    """A lower bound of the ε of (ε, 0)-differential privacy, at 95 % confidence; at least 0.

    ε-differential privacy bounds TPR / FPR and TNR / FNR of every attack by e^ε. The threshold with the largest bound
    is chosen on a random half of the examples, and judged on the other half by Clopper–Pearson intervals (Jagielski,
    Ullman and Oprea 2020, arXiv 2006.07709). It takes the examples' outcomes to be independent.
    """
    first = torch.randperm(len(victim.scores), generator=torch.Generator().manual_seed(0)) < len(victim.scores) // 2
    chosen, held = (Victim(victim.scores[half], victim.member[half]) for half in (first, ~first))
    thresholds = chosen.scores.unique()
    thresholds = thresholds[torch.linspace(0, len(thresholds) - 1, min(len(thresholds), 200)).long()]
    best = max((float(value) for value in thresholds), key=lambda value: bound_at(chosen, value))
    return max(0.0, bound_at(held, best))


def bound_at(victim: Victim, threshold: float) -> float:
    """The lower bound of ε from the examples that score at least `threshold`; may be negative."""
    flagged, member = victim.scores >= threshold, victim.member
    true, positives = int((flagged & member).sum()), int(member.sum())
    false, negatives = int((flagged & ~member).sum()), int((~member).sum())
    above = log_ratio(true, positives, false, negatives)
    return max(above, log_ratio(negatives - false, negatives, positives - true, positives))


def log_ratio(over: int, n: int, under: int, m: int) -> float:
    """Log of the lower limit of over/n by the upper limit of under/m; −inf without any of `over`."""
    low, _ = clopper_pearson(over, n)
    _, high = clopper_pearson(under, m)
    return log(low / high) if low > 0 else -inf


def clopper_pearson(successes: int, n: int, side: float = SIDE) -> tuple[float, float]:
    """The exact interval of a proportion that leaves out `side` at each end (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    low = float(betaincinv(successes, n - successes + 1, side)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - side)) if successes < n else 1.0
    return low, high
