"""Post-processing for equalized odds: decisions with equal true- and false-positive rates in all groups.

Hardt, Price and Srebro 2016, "Equality of Opportunity in Supervised Learning", arXiv 1610.02413, section 4. One
threshold reaches a point on a group's ROC curve, randomising between two thresholds a point on its convex hull, and a
further draw that ignores the score a point below. Equalized odds are possible at the points that every group reaches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BEYOND = 2.0  # distance of the first and the last threshold from the scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """The randomised decision rule of one group.

    With probability `ignored` a row is selected with probability `rate`, whatever its score. Otherwise the threshold is
    `second` with probability `share`, else `first`, and rows with scores above it are selected.
    """

    first: float
    second: float
    share: float
    ignored: float
    rate: float

    def chances(self, scores: Tensor) -> Tensor:
        """The probability of selection for each of the scores [N], float64 [N]."""
        by_score = self.share * (scores > self.second).double() + (1 - self.share) * (scores > self.first).double()
        return (1 - self.ignored) * by_score + self.ignored * self.rate


def equalized_odds_rules(scores: Tensor, labels: Tensor, group: Tensor) -> dict[int, Rule]:
    """The rule of each group: all groups get the same pair of rates, the one with the highest accuracy on these rows.

    Scores are float [N], labels 0 or 1 [N], groups int64 [N] with any values, each with rows of both labels; raises
    ValueError for a group that lacks one. Rates on these rows are equal in expectation over the draws.
    """
    hulls = {}
    for number in torch.unique(group).tolist():
        here = group == number
        if len(torch.unique(labels[here])) < 2:
            raise ValueError(f"group {number} has rows of one label alone")
        hulls[number] = roc_hull(scores[here], labels[here])
    positives = int((labels == 1).sum())
    false, true = best_point([hull[:, :2] for hull in hulls.values()], positives, len(labels) - positives)
    return {number: rule_for(hull, false, true) for number, hull in hulls.items()}


def roc_hull(scores: Tensor, labels: Tensor) -> Floats:
    """Corners of the upper convex hull of a ROC curve: rows of false- and true-positive rate and threshold, [K, 3].

    The rates ascend, starting at the last point without a false positive. Thresholds lie midway between two scores.
    """
    order = scores.double().argsort(descending=True, stable=True)
    ranked, positive = scores.double()[order].cpu().numpy(), labels[order].cpu().numpy() == 1
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last row of each distinct score
    lower = np.append(ranked[ends[:-1] + 1], ranked[-1] - 2 * BEYOND)
    true = np.append(0, positive.cumsum()[ends] / positive.sum())
    false = np.append(0, (~positive).cumsum()[ends] / (~positive).sum())
    thresholds = np.append(ranked[0] + BEYOND, (ranked[ends] + lower) / 2)
    corners: list[tuple[float, float, float]] = []
    for corner in zip(false.tolist(), true.tolist(), thresholds.tolist(), strict=True):
        while corners and corners[-1][0] == corner[0]:
            corners.pop()  # the same false-positive rate at a lower true-positive rate
        while len(corners) > 1 and below(corners[-1], corners[-2], corner):
            corners.pop()
        corners.append(corner)
    return np.array(corners)


def below(point: tuple[float, ...], left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    """Whether a point lies on or below the line from `left` to `right`."""
    return (point[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (point[0] - left[0])


def best_point(hulls: list[Floats], positives: int, negatives: int) -> tuple[float, float]:
    """The false- and true-positive rate, on or below every hull [K, 2], with the highest accuracy.

    Accuracy is linear in both rates and the lowest of the hulls is piecewise linear, so the optimum is one of its
    corners: a corner of a hull, or an intersection of two hulls.
    """
    false = np.unique(np.concatenate([hull[:, 0] for hull in hulls]))
    heights = np.stack([np.interp(false, hull[:, 0], hull[:, 1]) for hull in hulls])
    crossings = []
    for one, other in combinations(heights, 2):
        gap = one - other
        apart = np.flatnonzero(gap[:-1] * gap[1:] < 0)
        crossings.append(false[apart] + np.diff(false)[apart] * gap[apart] / (gap[apart] - gap[apart + 1]))
    false = np.unique(np.concatenate([false, *crossings]))
    true = np.min([np.interp(false, hull[:, 0], hull[:, 1]) for hull in hulls], axis=0)
    best = int((positives * true - negatives * false).argmax())
    return float(false[best]), float(true[best])


def rule_for(hull: Floats, false: float, true: float) -> Rule:
    """The rule that reaches these rates, which lie on or below the hull [K, 3] and on or above the diagonal."""
    right = int(np.searchsorted(hull[:, 0], false))
    left = max(0, right - 1)
    width = hull[right, 0] - hull[left, 0]
    share = float((false - hull[left, 0]) / width) if width > 0 else 1.0
    height = float(np.interp(false, hull[:, 0], hull[:, 1]))
    ignored = (height - true) / (height - false) if height > false else 0.0
    return Rule(float(hull[left, 2]), float(hull[right, 2]), share, float(np.clip(ignored, 0, 1)), false)


def decided(scores: Tensor, group: Tensor, rules: Mapping[int, Rule], generator: torch.Generator) -> Tensor:
    """Whether each row is selected, by one random draw per row: bool [N]; False for groups without a rule."""
    draws = torch.rand(len(scores), generator=generator, dtype=torch.float64)
    return draws < chances(scores, group, rules)


def chances(scores: Tensor, group: Tensor, rules: Mapping[int, Rule]) -> Tensor:
    """The probability that the rule of its group selects each row, float64 [N]; 0 for groups without a rule."""
    result = torch.zeros(len(scores), dtype=torch.float64)
    for number, rule in rules.items():
        result = torch.where(group == number, rule.chances(scores), result)
    return result
