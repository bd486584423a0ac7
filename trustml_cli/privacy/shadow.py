"""Membership by classifiers of the outputs of shadow networks.

Shokri, Stronati, Song and Shmatikov 2017, arXiv 1610.05820.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trustml_cli.privacy.inference import Inference, Observations, logit_confidence
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Shadow(Inference):
    """The log-odds of membership by a logistic regression for each class, fitted to the reference networks' outputs.

    Its inputs are φ of the label (`logit_confidence`) and the `top` largest log-probabilities, means over the views.
    `weight_decay` is the factor of the squared weights in its mean loss. The paper's attack models are networks with 64
    hidden units.
    """

    fewest_references: ClassVar = 1

    top: int
    weight_decay: float
    iterations: int

    def __post_init__(self) -> None:
        require(self, "top", "iterations", at_least=1)
        require(self, "weight_decay", at_least=0)

    def score(self, seen: Observations) -> Tensor:
        theirs, ours = self.inputs(seen.references, seen.labels), self.inputs(seen.victim[None], seen.labels)[0]
        mean, std = theirs.mean((0, 1)), theirs.std((0, 1)).clamp(min=1e-12)
        theirs, ours = (theirs - mean) / std, (ours - mean) / std
        score = torch.zeros(len(seen.labels), dtype=torch.float64)
        for number in range(seen.victim.shape[-1]):
            own = seen.labels == number
            if not own.any():
                continue
            weights = self.fit(theirs[:, own].flatten(0, 1), seen.inside[:, own].flatten())
            score[own] = ours[own] @ weights[:-1] + weights[-1]
        return score

    def inputs(self, logits: Tensor, labels: Tensor) -> Tensor:
        """φ and the largest log-probabilities, [R, N, 1 + top], for logits [R, V, N, C]."""
        largest = logits.log_softmax(-1).topk(min(self.top, logits.shape[-1]), dim=-1).values.mean(1)
        return torch.cat([logit_confidence(logits, labels).mean(1)[..., None], largest], -1)

    def fit(self, inputs: Tensor, inside: Tensor) -> Tensor:
        """Weights and, last, bias of the logistic regression of `inside` (bool [M]) on `inputs` [M, D]."""
        weights = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=self.iterations, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            odds = inputs @ weights[:-1] + weights[-1]
            value = functional.binary_cross_entropy_with_logits(odds, inside.double())
            value = value + self.weight_decay * weights[:-1].square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return weights.detach()
