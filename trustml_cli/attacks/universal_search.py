"""A universal perturbation, searched for over goals and random starts by gradient ascent on a smooth fooling rate."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.attacks.geometry import unit_step
from trustml_cli.attacks.losses import logit_margin
from trustml_cli.attacks.universal_base import answered
from trustml_cli.attacks.universal_loop import UniversalLoop, targets
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class UniversalSearch(UniversalLoop):
    """Maximises the mean sigmoid of the goal's logit margin divided by `softness`.

    The gradient comes from images near the boundary and vanishes for those far on either side of it. v starts at
    random: every value ±ε in L∞, a random direction of length ε in L2.

    Untargeted, the goals are any other class than before, and each class for all images: drawing all predictions to one
    class often changes more of them. Each goal is tried from one start for a share `screening` of the epochs. The goal
    that changes most predictions for the attacker's own images is then pursued in all epochs from `restarts` starts,
    and what changes most of these predictions is returned. With a target there is no other goal.

        attack = UniversalSearch(
            norm=Norm.linf, target=None, training_images=2000, epochs=10, batch_size=100, step_size=0.3,
            momentum=0.9, softness=2.0, restarts=3, screening=0.2
        )
        x_adv = attack.fit(model, own_x, own_y)(model, x, y, epsilon=10 / 255)
    """

    softness: float
    restarts: int
    screening: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "softness", "screening", above=0)
        require(self, "screening", at_most=1)
        require(self, "restarts", at_least=1)

    def learn(self, model: nn.Module, x: Tensor, epsilon: float) -> Tensor:
        x, seen = answered(model, x)

        def attempt(goal: int | None, epochs: int) -> tuple[Tensor, float]:
            start = epsilon * unit_step(torch.randn_like(x[:1]), self.norm)
            return self.ascend(model, x, seen, goal, start, epsilon, epochs)

        goal = self.target if self.target is None else int(self.target)
        if goal is None:
            with torch.no_grad():
                classes = model(x[:1]).shape[1]
            short = max(1, round(self.screening * self.epochs))
            rates = {each: attempt(each, short)[1] for each in (None, *range(classes))}
            goal = max(rates, key=lambda each: rates[each])
        return max((attempt(goal, self.epochs) for _ in range(self.restarts)), key=lambda found: found[1])[0]

    def objective(self, logits: Tensor, seen: Tensor, goal: int | None) -> Tensor:
        return (logit_margin(logits, seen, targets(seen, goal)) / self.softness).sigmoid()
