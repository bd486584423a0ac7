"""Attacks of several runs on the same images; each run skips the images that are already misclassified."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack
from trustml_cli.attacks.losses import clear_margin, likeliest_wrong
from trustml_cli.models.inference import logits_of


@dataclass
class Attempt:
    """The images without success so far, repeated once for each goal class that is tried in parallel.

    `x` is [P, C, H, W] and `y` [P]. `goal` [P] is the class of the targeted loss, None for an untargeted loss.
    `target` [P] is the class that counts as success, None for any wrong class. Row i is image `image[i]` of `count`.
    """

    x: Tensor
    y: Tensor
    goal: Tensor | None
    target: Tensor | None
    image: Tensor
    count: int

    def labels(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """True class and goal of these rows."""
        return self.y[rows], None if self.goal is None else self.goal[rows]

    def margin(self, logits: Tensor, rows: Tensor) -> Tensor:
        """`losses.clear_margin` of these rows, [len(rows)]."""
        return clear_margin(logits, self.y[rows], None if self.target is None else self.target[rows])

    def open(self, succeeded: Tensor, rows: Tensor) -> Tensor:
        """Which of `rows` to continue, bool: those of images of which no row has `succeeded`."""
        fallen = torch.zeros(self.count, dtype=torch.bool, device=succeeded.device)
        fallen[self.image[rows[succeeded]]] = True
        return ~fallen[self.image[rows]]

    def best(self, found: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """The row of `found` [P, C, H, W] with the highest score [P] for each of the `count` images, and that score."""
        score, goal = score.view(-1, self.count).max(0)
        number = torch.arange(self.count, device=goal.device)
        return found.view(-1, self.count, *found.shape[1:])[goal, number], score


@dataclass
class AttackState:
    """The images of a batch under attack and, for each, the best adversarial image and its margin so far.

    The best image is the one with the largest margin of the goal. An image that reaches the goal unperturbed counts as
    a success. An attempt never has more rows than the batch has images: several goals are tried in parallel only if
    enough images have already succeeded.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    target: int | None
    best: Tensor = field(init=False)
    margin: Tensor = field(init=False)
    likeliest: Tensor = field(init=False)
    """The wrong classes of each image, likeliest first, [N, K − 1]."""

    def __post_init__(self) -> None:
        self.best = self.x.clone()
        with torch.no_grad():
            logits = logits_of(self.model, self.x)
        self.likeliest = likeliest_wrong(logits, self.y, logits.shape[1] - 1)
        self.margin = clear_margin(logits, self.y, self._as_labels(self.y))

    def _as_labels(self, y: Tensor) -> Tensor | None:
        return None if self.target is None else torch.full_like(y, self.target)

    @property
    def left(self) -> Tensor:
        """Indices of the images without success so far, int64."""
        return (self.margin <= 0).nonzero()[:, 0]

    def attempts(self, targets: int | None) -> Iterator[Attempt]:
        """Yield attempts: for the target, any wrong class, or the `targets` most likely wrong classes in turn."""
        if self.target is not None or targets is None:
            if len(left := self.left):
                yield self._attempt(left, None)
            return
        first, last = 0, min(targets, self.likeliest.shape[1])
        while first < last and len(left := self.left):
            together = min(max(len(self.x) // len(left), 1), last - first)
            yield self._attempt(left, self.likeliest[left, first : first + together].T)
            first += together

    def _attempt(self, left: Tensor, goals: Tensor | None) -> Attempt:
        times = 1 if goals is None else len(goals)
        rows = left.repeat(times)
        y = self.y[rows]
        target = self._as_labels(y)
        image = torch.arange(len(left), device=left.device).repeat(times)
        return Attempt(self.x[rows], y, target if goals is None else goals.flatten(), target, image, len(left))

    def take(self, attempt: Attempt, found: Tensor, margin: Tensor) -> None:
        """Record the images [P, C, H, W] that an attempt found and their margins [P], −∞ where none was found."""
        left = self.left
        found, margin = attempt.best(found, margin)
        better = margin > self.margin[left]
        self.best[left[better]] = found[better]
        self.margin[left[better]] = margin[better]


@dataclass(frozen=True, kw_only=True)
class MultiAttemptAttack(Attack):
    """An attack of several attempts, each on the images without success so far.

    Returns the first image found that reaches the goal, else the one with the largest margin.
    """

    @abstractmethod
    def attack_remaining(self, state: AttackState, epsilon: float) -> None:
        """Attack the images without success so far and record the results in `state`."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        state = AttackState(model, x, y, None if self.target is None else int(self.target))
        self.attack_remaining(state, epsilon)
        return state.best
