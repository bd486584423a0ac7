"""The victim as a thief sees it: a query goes in, an answer comes out, and somebody counts."""

from enum import Enum

import torch
from torch import Tensor, nn

CHUNK = 250  # queries that are answered in one forward pass


class Answer(Enum):
    """What the victim gives away, from most to least."""

    logits = "logits"
    """Unnormalised scores of all classes."""
    probabilities = "probabilities"
    """Their softmax."""
    labels = "labels"
    """The likeliest class alone."""

    @property
    def rank(self) -> int:
        """0 for the richest kind of answer; from each kind, those of a higher rank can be told."""
        return list(Answer).index(self)


class QueriesSpent(Exception):
    """The victim was asked more often than its limit allows."""


class Victim:
    """A classifier behind a query interface; the only way by which a thief may reach it.

    `network` maps inputs [N, *shape] in [0, 1] to logits [N, classes]. `returns` is the most that is given away,
    `round_digits` the decimal places that logits and probabilities are rounded to (None: not at all), and `limit` the
    number of queries after which `QueriesSpent` is raised. `queries` counts each input once, however it was batched.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        classes: int,
        *,
        device: torch.device,
        returns: Answer,
        round_digits: int | None,
        limit: int | None,
    ) -> None:
        self._network, self._device = network, device
        self.shape, self.classes = shape, classes
        self.returns, self.round_digits, self.limit = returns, round_digits, limit
        self.queries = 0

    def logits(self, x: Tensor) -> Tensor:
        """Scores of all classes, float [N, classes], for inputs x [N, *shape]."""
        return self._rounded(self._ask(x, Answer.logits))

    def probabilities(self, x: Tensor) -> Tensor:
        """Probabilities of all classes, float [N, classes]; rounded, they need not add up to 1."""
        return self._rounded(self._ask(x, Answer.probabilities).softmax(1))

    def labels(self, x: Tensor) -> Tensor:
        """The likeliest class, int64 [N]."""
        return self._ask(x, Answer.labels).argmax(1)

    @torch.no_grad()
    def _ask(self, x: Tensor, wanted: Answer) -> Tensor:
        """Logits of the network, on the CPU, once the queries are counted and found to be allowed."""
        assert x.shape[1:] == self.shape, (x.shape, self.shape)
        if wanted.rank < self.returns.rank:
            raise ValueError(f"the victim hides its {wanted.value}; it returns {self.returns.value}")
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError("queries must lie in [0, 1]")
        if self.limit is not None and self.queries + len(x) > self.limit:
            raise QueriesSpent(f"{self.queries} + {len(x)} queries are more than the {self.limit} that are allowed")
        self.queries += len(x)
        parts = [self._network(part.to(self._device)).float().cpu() for part in torch.split(x, CHUNK)]
        return torch.cat(parts)

    def _rounded(self, answers: Tensor) -> Tensor:
        return answers if self.round_digits is None else answers.round(decimals=self.round_digits)
