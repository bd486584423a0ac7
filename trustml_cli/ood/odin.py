"""ODIN: softmax at high temperature, after a small input perturbation that increases the confidence.

Liang, Li and Srikant 2018, arXiv 1706.02690.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, exact
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Odin(Detector):
    """The negative confidence at `temperature` for images perturbed by `epsilon` (pixel units) towards the prediction.

    The paper uses temperature 1000 and step 0.0014; perturbed images are not clipped to [0, 1].
    """

    gradients: ClassVar = True

    temperature: float
    epsilon: float

    def __post_init__(self) -> None:
        require(self, "temperature", above=0)
        require(self, "epsilon", at_least=0)

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return odin_score(outputs.network, x, self.temperature, self.epsilon)


def odin_score(network: nn.Module, x: Tensor, temperature: float, epsilon: float) -> Tensor:
    """−maxₖ softmax(f(x̃)/T)ₖ with x̃ = x − ε·sign(∇ₓ cross-entropy(f(x)/T, ŷ)): float64 [N].

    ŷ is the predicted class. Costs two forward passes and one backward pass.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = network(x) / temperature
        loss = functional.cross_entropy(logits, logits.argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    with torch.no_grad():
        moved = network(x - epsilon * gradient.sign())
    return -(exact(moved) / temperature).softmax(1).amax(1)
