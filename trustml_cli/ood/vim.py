"""ViM: a virtual logit from the features' distance to the principal subspace of the training features.

Wang, Li, Feng and Zhang 2022, arXiv 2203.10807.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, Fitting, exact
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class VirtualLogit(Detector):
    """The virtual logit minus the log-sum-exp of the logits.

    The principal subspace has the share `principal`, in (0, 1), of the features' dimensions. The paper takes about a
    half of 2,048 and two thirds of 768.
    """

    linear_head: ClassVar = True

    principal: float

    def __post_init__(self) -> None:
        require(self, "principal", above=0, below=1)

    def fit(self, training: Fitting, validation: Fitting) -> FittedState:
        outputs = training.outputs
        width = outputs.features.shape[1]
        dimensions = min(max(1, round(self.principal * width)), width - 1)
        return residual_space(outputs.features, outputs.logits, outputs.head, dimensions)

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return virtual_logit_score(outputs.features, outputs.logits, learned)


def residual_space(features: Tensor, logits: Tensor, head: nn.Linear, dimensions: int) -> dict[str, Tensor]:
    """What `virtual_logit_score` needs of training features [N, D] and their logits [N, K]; float64.

    `origin` [D] is −W⁺b of the output layer Wh + b; `residual` [D, D − dimensions] spans what is orthogonal to the
    directions in which the features vary most around it; `scale` makes the mean virtual logit the mean largest logit.
    """
    bias = head.weight.new_zeros(head.out_features) if head.bias is None else head.bias
    origin = -torch.linalg.pinv(exact(head.weight.detach())) @ exact(bias.detach())
    centred = exact(features) - origin
    _, directions = torch.linalg.eigh(centred.T @ centred / len(centred))  # ascending
    residual = directions[:, : features.shape[1] - dimensions]
    norm = (centred @ residual).norm(dim=1).mean()
    scale = exact(logits).amax(1).mean() / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return {"origin": origin, "residual": residual.contiguous(), "scale": scale}


def virtual_logit_score(features: Tensor, logits: Tensor, space: FittedState) -> Tensor:
    """α‖Rᵀ(h − o)‖₂ − log Σₖ exp(zₖ) of features h [N, D] and logits z [N, K]: float64 [N]."""
    norm: Tensor = ((exact(features) - space["origin"]) @ space["residual"]).norm(dim=1)
    return space["scale"] * norm - exact(logits).logsumexp(1)
