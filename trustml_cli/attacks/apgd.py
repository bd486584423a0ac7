"""Auto-PGD: projected gradient ascent with an adaptive step size, and in L1 with sparse steps.

Croce and Hein 2020, arXiv 2003.01690; in L1 Croce and Hein 2021, arXiv 2103.01208.
"""

from dataclasses import dataclass, fields, replace
from functools import partial
from math import ceil, inf
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm, per_image
from trustml_cli.attacks.attempts import AttackState, Attempt, MultiAttemptAttack
from trustml_cli.attacks.geometry import normalised, project, radii, unit_step
from trustml_cli.attacks.losses import Loss, loss_gradient, per_image_loss
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require

MOMENTUM = 0.75  # weight of the new step; the previous step has the rest (the paper's α)
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06  # checkpoint interval as a share of `steps`: first, decrement, minimum
WIDER = ((3.0, 0.3), (2.0, 0.3))  # L1: first balls of so many ε, each with this share of the steps
OFTEN = 0.04  # L1: checkpoint interval as a share of the steps in one ball
SPARSER = 1.5  # L1: a step changes this factor fewer values than the best perturbation has
SHRINK, SMALLEST = 1.5, 0.1  # L1: divisor of the step size at a checkpoint, and its smallest value as a share of ε
STEADY = 0.95  # L1: the step size is reset if the number of changed values fell below this share


@dataclass(frozen=True, kw_only=True)
class APGD(MultiAttemptAttack):
    """Starts on the boundary of the ball with step size 2ε and halves the step size where progress stalls.

    At each checkpoint (the intervals shrink), the step size of an image is halved if its loss rose in at most a share
    `rho` of the steps since the last checkpoint, or if its best loss has not improved over an interval that was not
    preceded by a halving. The image then restarts from its best point.

    In L1 a step of size ε changes only the values with the largest gradients, two thirds as many as the best
    perturbation so far has. The step size is divided by 1.5 at each checkpoint (at least ε/10). Where the number of
    changed values has fallen by 5 % it is reset to ε instead, and the image restarts from its best point. The first
    60 % of the steps are taken in balls of radius 3ε and 2ε; `rho` is not used.

    Each of `restarts` runs has `steps` steps and attacks only images without success so far. `targets` is the number of
    most likely wrong classes tried in turn with the targeted loss (APGD-T in the paper); None maximises the untargeted
    loss.

        attack = APGD(norm=Norm.linf, target=None, loss=Loss.dlr, steps=100, restarts=1, rho=0.75, targets=9)
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.linf, Norm.l2, Norm.l1)

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
        x = attempt.x
        if self.norm is not Norm.l1:
            state = State.start(x, at_the_edge(x, epsilon, self.norm), 2 * epsilon)
            return self.climb(model, attempt, state, epsilon, Schedule(self.steps, FIRST, SHORTER, SHORTEST))
        wider = [(factor, ceil(share * self.steps)) for factor, share in WIDER if self.steps > len(WIDER)]
        x_adv = x + torch.randn_like(x)
        for factor, steps in wider:
            state = SparseState.within(x, x_adv, factor * epsilon)
            x_adv, _ = self.climb(model, attempt, state, factor * epsilon, Schedule(steps, OFTEN), final=False)
        steps = self.steps - sum(steps for _, steps in wider)
        return self.climb(model, attempt, SparseState.within(x, x_adv, epsilon), epsilon, Schedule(steps, OFTEN))

    def climb(
        self,
        model: nn.Module,
        attempt: Attempt,
        state: "State",
        epsilon: float,
        schedule: "Schedule",
        final: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Ascend from `state` within `epsilon`; return the image found for each row and its margin.

        A row stops once the goal is reached. A climb that is not `final` returns the images with the largest loss.
        """
        climb = partial(per_image_loss, self.loss, above_all=attempt.target is not None)
        found = attempt.x.clone()
        margins = attempt.x.new_full((len(found),), -torch.inf)
        y, goal = attempt.labels(state.rows)
        window = schedule.first
        checkpoint = window
        for step in range(schedule.steps + 1):
            if step < schedule.steps:
                logits, loss, state.gradient = loss_gradient(model, state.x_adv, climb(y, goal))
            else:  # nothing moves any more
                with torch.no_grad():
                    logits = logits_of(model, state.x_adv)
                    loss = climb(y, goal)(logits)
            margin = attempt.margin(logits, state.rows)
            state.note(loss, margin)
            succeeded = margin > 0
            if final and succeeded.any():
                found[state.rows[succeeded]], margins[state.rows[succeeded]] = state.x_adv[succeeded], margin[succeeded]
                state = state.only(attempt.open(succeeded, state.rows))
                if not len(state.rows):
                    return found, margins
                y, goal = attempt.labels(state.rows)
            if step == schedule.steps:
                break
            if step == checkpoint:
                state.check(self.rho * window)
                window = schedule.after(window)
                checkpoint += window
            state.move(epsilon, self.norm, 1.0 if step == 0 else MOMENTUM)
        found[state.rows], margins[state.rows] = state.best, state.best_lead
        return found, margins


@dataclass(frozen=True)
class Schedule:
    """The checkpoints of a climb of `steps` steps; the other values are shares of `steps`."""

    steps: int
    interval: float
    decrement: float = 0.0
    shortest: float = 0.0

    @property
    def first(self) -> int:
        """The number of steps to the first checkpoint."""
        return max(int(self.interval * self.steps), 1)

    def after(self, window: int) -> int:
        """The number of steps to the next checkpoint after an interval of `window` steps."""
        if not self.decrement:
            return window
        return max(window - max(int(self.decrement * self.steps), 1), max(int(self.shortest * self.steps), 1))


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

    def only(self, kept: Tensor) -> Self:
        """Return the state restricted to the rows `kept`."""
        return replace(self, **{field.name: getattr(self, field.name)[kept] for field in fields(self)})

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


@dataclass
class SparseState(State):
    """State of the rows in L1: of what share of the values a step changes."""

    share: Tensor
    """The share of the values with the largest gradients that a step changes, [P]."""
    changed: Tensor
    """The number of values that the best point changes, at the last checkpoint; [P]."""
    full: Tensor
    """The largest step size, [P]."""

    @classmethod
    def within(cls, x: Tensor, x_adv: Tensor, epsilon: float) -> Self:
        """The state at the projections of x_adv into the ball of radius `epsilon`, which is also the step size."""
        x_adv = project(x_adv, x, epsilon, Norm.l1)
        size, changed = radii(epsilon, x), changes(x_adv, x)
        base = State.start(x, x_adv, epsilon)
        return cls(**vars(base), share=changed / x[0].numel() / SPARSER, changed=changed, full=size)

    def check(self, enough: float) -> None:
        """Divide the step size by 1.5; where the best point became sparser, reset both step size and image instead."""
        changed = changes(self.best, self.x)
        sparser = changed < STEADY * self.changed
        self.share, self.changed = changed / self.x[0].numel() / SPARSER, changed
        self.size = torch.where(sparser, self.full, (self.size / SHRINK).maximum(SMALLEST * self.full))
        back = per_image(sparser, self.x)
        self.x_adv = torch.where(back, self.best, self.x_adv)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)

    def move(self, epsilon: float, norm: Norm, share: float) -> None:
        """Move the values with the largest gradients by the same amount, without momentum, and project."""
        slope = self.gradient.flatten(1)
        size = slope.abs()
        skipped = ((1 - self.share) * slope.shape[1]).long().clamp(max=slope.shape[1] - 1)
        least = size.sort(dim=1).values.gather(1, skipped[:, None])
        signs = slope.where(size >= least, 0.0).sign()
        step = self.size[:, None] * normalised(signs, 1)
        self.x_adv = project(self.x_adv + step.view_as(self.x), self.x, epsilon, norm)


def changes(x_adv: Tensor, x: Tensor) -> Tensor:
    """The number of values in which each image differs from x, as a float; [N]."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)


def at_the_edge(x: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Random points at distance `epsilon` from x, clipped to [0, 1]; the starting points of the paper's code."""
    if norm is Norm.linf:
        change = 2 * torch.rand_like(x) - 1
        change = normalised(change, inf)
    else:
        change = unit_step(torch.randn_like(x), norm)
    return (x + epsilon * change).clamp(0, 1)
