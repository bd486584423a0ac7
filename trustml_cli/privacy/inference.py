"""The base class of membership inference attacks, and what they observe of a network."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Observations:
    """The outputs of a victim and of reference networks for N examples in V views, all float64 on the CPU.

    `victim` are logits [V, N, C] and `labels` class numbers, int64 [N]. `references` are the logits of R networks that
    the attacker has trained, [R, V, N, C], and `inside` says which examples each was trained on, bool [R, N].
    """

    victim: Tensor
    labels: Tensor
    references: Tensor
    inside: Tensor


@dataclass(frozen=True, kw_only=True)
class Inference(ABC):
    """Scores whether examples were in the victim's training set. Subclasses declare their config keys as fields."""

    fewest_references: ClassVar[int] = 0
    """How many reference networks it needs; 0: it makes no use of them."""

    @abstractmethod
    def score(self, seen: Observations) -> Tensor:
        """A score for each example, float64 [N]: higher is more likely a member."""


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The log of the label's softmax probability, in nats: logits [..., N, C], labels [N], result [..., N]."""
    return logits.log_softmax(-1).gather(-1, labels.expand(logits.shape[:-1])[..., None])[..., 0]


def logit_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """φ = log p_y − log Σ_{k≠y} p_k, which is close to normally distributed (Carlini et al. 2022, arXiv 2112.03570).

    Computed from the logits [..., N, C], so that it neither overflows nor loses digits; [..., N].
    """
    index = labels.expand(logits.shape[:-1])[..., None]
    others = logits.scatter(-1, index, -torch.inf)
    return logits.gather(-1, index)[..., 0] - others.logsumexp(-1)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean over networks of `values` [R, V, N] where `chosen` [R, N] is true, [V, N]; nan where none is."""
    weights = chosen[:, None].to(values)
    return (values * weights).sum(0) / weights.sum(0)
