"""TRADES: cross-entropy on clean images plus a divergence to the predictions in the ball around them.

Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan 2019, arXiv 1901.08573.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.attacks.geometry import project
from trustml_cli.attacks.iterative import Iterative, iterate
from trustml_cli.attacks.losses import loss_gradient
from trustml_cli.defences.defence import RobustTraining, eval_mode
from trustml_cli.system.ranges import require
from trustml_cli.training.step import TrainingState

NUDGE = 0.001  # pixel units, standard deviation of the random start: at x itself the divergence has zero gradient


@dataclass(frozen=True, kw_only=True)
class TradesTraining(RobustTraining):
    """Loss: cross-entropy(x) + `beta` · max KL(p(x) ‖ p(x')) over the images x' in the ball around x.

    The maximum is approximated by `steps` ascent steps of `step_size` (pixel units; None:
    `rel_path_length`·epsilon/`steps`). A larger `beta` (the paper's 1/λ) trades clean accuracy for robustness.
    """

    beta: float
    steps: int
    step_size: float | None
    rel_path_length: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "beta", at_least=0)
        self.drift()  # `Drift` validates its parameters

    def drift(self) -> "Drift":
        """The attack that maximises the divergence."""
        return Drift(
            norm=self.norm,
            target=None,
            steps=self.steps,
            step_size=self.step_size,
            rel_path_length=self.rel_path_length,
        )

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with eval_mode(state.network):
            x_adv = self.drift()(state.network, x, y, self.epsilon)

        def closure() -> tuple[Tensor, Tensor]:
            clean, attacked = state.network(x), state.network(x_adv)
            apart = divergence(clean, attacked).mean()
            return state.cross_entropy(clean, y) + self.beta * apart, attacked

        return state.step(closure)


@dataclass(frozen=True, kw_only=True)
class Drift(Iterative):
    """Maximises KL(p(x) ‖ p(x')) over the ball around x; the labels are ignored."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        with torch.no_grad():
            clean = model(x)
        start = project(x + NUDGE * torch.randn_like(x), x, epsilon, self.norm)

        def uphill(x_adv: Tensor) -> Tensor:
            return loss_gradient(model, x_adv, lambda logits: divergence(clean, logits))[2]

        return iterate(uphill, start, x, epsilon, self.norm, self.steps, self.step(epsilon))


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p ‖ q) in nats of the softmax p of `logits` and q of `others`, both [N, K]; one value for each image."""
    log_p, log_q = logits.log_softmax(1), others.log_softmax(1)
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
