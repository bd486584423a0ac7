"""Membership by the victim's loss.

Yeom, Giacomelli, Fredrikson and Jha 2018, arXiv 1709.01604.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.privacy.inference import Inference, Observations, log_probability


@dataclass(frozen=True, kw_only=True)
class Loss(Inference):
    """The negative cross-entropy of the label, the mean over the views: members have a lower loss."""

    def score(self, seen: Observations) -> Tensor:
        return log_probability(seen.victim, seen.labels).mean(0)
