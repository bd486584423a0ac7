"""The victim's query interface: answers queries and counts them."""

from enum import Enum

import torch
from torch import Tensor, nn

CHUNK = 250  # queries that are answered in one forward pass


class Answer(Enum):
    """What the victim returns, from most to least informative."""

    logits = "logits"
    """The logits of all classes."""
    probabilities = "probabilities"
    """The softmax probabilities of all classes."""
    labels = "labels"
    """The predicted class only."""

    @property
    def rank(self) -> int:
        """0 for the most informative kind of answer; each kind can be converted into those of higher rank."""
        return list(Answer).index(self)


class QueriesSpent(Exception):
    """The victim was queried more often than its limit allows."""


class Victim:
    """A classifier behind a query interface, the thief's only access to it.

    `network` maps inputs [N, *shape] in [0, 1] to logits [N, classes]. `returns` is the most informative answer
    allowed, `round_digits` the decimal places that logits and probabilities are rounded to (None: no rounding), and
    `limit` the number of queries after which `QueriesSpent` is raised. `queries` counts each input once, independent of
    batching.
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
        """Logits of all classes, float [N, classes], for inputs x [N, *shape]."""
        return self._rounded(self._ask(x, Answer.logits))

    def probabilities(self, x: Tensor) -> Tensor:
        """Probabilities of all classes, float [N, classes]; rounded, they need not add up to 1."""
        return self._rounded(self._ask(x, Answer.probabilities).softmax(1))

    def labels(self, x: Tensor) -> Tensor:
        """The predicted class, int64 [N]."""
        return self._ask(x, Answer.labels).argmax(1)

    @torch.no_grad()
    def _ask(self, x: Tensor, wanted: Answer) -> Tensor:
        """The network's logits, on the CPU, after counting the queries and checking that they are allowed."""
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
