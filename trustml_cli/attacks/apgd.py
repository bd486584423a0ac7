"""Auto-PGD: projected gradient ascent with momentum and an adaptive step size.

Croce and Hein 2020, arXiv 2003.01690.
"""

from dataclasses import dataclass, fields
from functools import partial
from math import inf
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm, per_image
from trustml_cli.attacks.attempts import AttackState, Attempt, MultiAttemptAttack
from trustml_cli.attacks.geometry import normalised, project, unit_step
from trustml_cli.attacks.losses import Loss, loss_gradient, per_image_loss
from trustml_cli.system.ranges import require

MOMENTUM = 0.75  # weight of the new step; the previous step has the rest (the paper's α)
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06  # checkpoint interval as a share of `steps`: first, decrement, minimum


@dataclass(frozen=True, kw_only=True)
class APGD(MultiAttemptAttack):
    """Starts on the boundary of the ball with step size 2ε and halves the step size where progress stalls.

    At each checkpoint (the intervals shrink), the step size of an image is halved if its loss rose in at most a share
    `rho` of the steps since the last checkpoint, or if its best loss has not improved over an interval that was not
    preceded by a halving. The image then restarts from its best point.

    Each of `restarts` runs has `steps` steps and attacks only images without success so far. `targets` is the number of
    most likely wrong classes tried in turn with the targeted loss (APGD-T in the paper); None maximises the untargeted
    loss.

        attack = APGD(norm=Norm.linf, target=None, loss=Loss.dlr, steps=100, restarts=1, rho=0.75, targets=9)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf, Norm.l2)

    loss: Loss
    steps: int
    restarts: int
    rho: float
    targets: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "steps", "restarts", "targets", at_least=1)
        require(self, "rho", at_least=0, at_most=1)

    def loss_gradient(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of the untargeted `loss`, or of the loss of `target`; of x's shape."""
        goal = None if self.target is None else torch.full_like(y, int(self.target))
        return loss_gradient(model, x, per_image_loss(self.loss, y, goal, above_all=goal is not None))[2]

    def attack_remaining(self, state: AttackState, epsilon: float) -> None:
        for _ in range(self.restarts):
            for attempt in state.attempts(self.targets):
                state.take(attempt, *self.run(state.model, attempt, epsilon))

    def run(self, model: nn.Module, attempt: Attempt, epsilon: float) -> tuple[Tensor, Tensor]:
        """Run the attack once; return the image found for each row of `attempt` and its margin."""
        climb = partial(per_image_loss, self.loss, above_all=attempt.target is not None)
        found = attempt.x.clone()
        margins = attempt.x.new_full((len(found),), -torch.inf)
        state = State.start(attempt.x, at_the_edge(attempt.x, epsilon, self.norm), 2 * epsilon)
        y, goal = attempt.labels(state.rows)
        window = max(int(FIRST * self.steps), 1)
        checkpoint = window
        for step in range(self.steps + 1):
            logits, loss, state.gradient = loss_gradient(model, state.x_adv, climb(y, goal))
            margin = attempt.margin(logits, state.rows)
            state.note(loss, margin)
            succeeded = margin > 0
            if succeeded.any():
                found[state.rows[succeeded]], margins[state.rows[succeeded]] = state.x_adv[succeeded], margin[succeeded]
                state = state.only(attempt.open(succeeded, state.rows))
                if not len(state.rows):
                    return found, margins
                y, goal = attempt.labels(state.rows)
            if step == self.steps:
                break
            if step == checkpoint:
                state.check(self.rho * window)
                window = max(window - max(int(SHORTER * self.steps), 1), max(int(SHORTEST * self.steps), 1))
                checkpoint += window
            state.move(epsilon, self.norm, 1.0 if step == 0 else MOMENTUM)
        found[state.rows], margins[state.rows] = state.best, state.best_lead
        return found, margins


@dataclass
class State:
    """State of the rows that are still being optimised; the first axis of every tensor is the row."""

    rows: Tensor
    x: Tensor
    x_adv: Tensor
    before: Tensor
    """x_adv of the previous step."""
    gradient: Tensor
    size: Tensor
    """Step size, [P]."""
    loss: Tensor
    rises: Tensor
    """Number of steps since the last checkpoint in which the loss rose."""
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    best_lead: Tensor
    loss_at_check: Tensor
    """The best loss at the last checkpoint."""
    halved: Tensor
    """Whether the step size was halved at the last checkpoint."""

    @classmethod
    def start(cls, x: Tensor, x_adv: Tensor, size: float) -> "State":
        rows = torch.arange(len(x), device=x.device)
        lowest = x.new_full((len(x),), -torch.inf)
        return cls(
            rows=rows, x=x, x_adv=x_adv, before=x_adv, gradient=x, size=torch.full_like(lowest, size),
            loss=-lowest, rises=torch.zeros_like(rows), best=x_adv, best_gradient=x, best_loss=lowest,
            best_lead=lowest, loss_at_check=lowest, halved=torch.ones_like(rows, dtype=torch.bool),
        )  # fmt: skip

    def only(self, kept: Tensor) -> "State":
        """Return the state restricted to the rows `kept`."""
        return State(*(getattr(self, field.name)[kept] for field in fields(self)))

    def note(self, loss: Tensor, margin: Tensor) -> None:
        """Record the loss and margin at x_adv: count a rise, and update the best point."""
        self.rises = self.rises + (loss > self.loss)
        self.loss = loss
        better = loss > self.best_loss
        where = per_image(better, self.x)
        self.best = torch.where(where, self.x_adv, self.best)
        self.best_gradient = torch.where(where, self.gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best_lead = torch.where(better, margin, self.best_lead)

    def check(self, enough: float) -> None:
        """Halve the step size of rows that rose at most `enough` times or stalled; reset them to their best point."""
        stuck = ~self.halved & (self.loss_at_check >= self.best_loss)
        self.halved = (self.rises <= enough) | stuck
        self.loss_at_check = self.best_loss
        self.rises = torch.zeros_like(self.rises)
        self.size = torch.where(self.halved, self.size / 2, self.size)
        back = per_image(self.halved, self.x)
        self.x_adv = torch.where(back, self.best, self.x_adv)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)

    def move(self, epsilon: float, norm: Norm, share: float) -> None:
        """Take a gradient step with weight `share`, plus the previous step with weight 1 − `share`."""
        step = per_image(self.size, self.x) * unit_step(self.gradient, norm)
        ahead = project(self.x_adv + step, self.x, epsilon, norm)
        ahead = self.x_adv + share * (ahead - self.x_adv) + (1 - share) * (self.x_adv - self.before)
        self.before, self.x_adv = self.x_adv, project(ahead, self.x, epsilon, norm)


def at_the_edge(x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Random points at distance `epsilon` from x, clipped to [0, 1]; the starting points of the paper's code."""
    if norm is Norm.linf:
        change = 2 * torch.rand_like(x) - 1
        change = normalised(change, inf)
    else:
        change = unit_step(torch.randn_like(x), norm)
    return (x + epsilon * change).clamp(0, 1)
