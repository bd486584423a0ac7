"""One-pixel attack: a few pixels of any colour, found by differential evolution.

Su, Vargas and Sakurai 2019, arXiv 1710.08864.
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Norm
from trustml_cli.attacks.attempts import AttackState, Attempt, MultiAttemptAttack
from trustml_cli.attacks.geometry import project
from trustml_cli.attacks.losses import Loss, per_image_loss
from trustml_cli.models.inference import logits_of
from trustml_cli.system.ranges import require

SCALE = 0.5  # factor on the difference of two candidates (the paper's F)
MEAN, SPREAD = 0.5, 0.5  # of the normal distribution of the first values; those of the positions are uniform
TOGETHER = 512  # images in one forward pass


@dataclass(frozen=True, kw_only=True)
class OnePixel(MultiAttemptAttack):
    """Sets pixels at any place to any colour; a population of such changes evolves for each image.

    Epsilon is the number of values that change (L0), so it is the number of pixels times that of the channels: 1 for a
    grey pixel, 3 for one of colour. Each of at most `steps` generations makes, for each of the `population` candidates,
    another as the sum of a random one and half the difference of two more. It takes the candidate's place if its
    log-odds against the class (or for the target) are higher; the paper's probability orders them alike, but rounds.

    It uses logits but no gradients: `population`·(`steps` + 1) queries per image at most, only for images without
    success so far.

        attack = OnePixel(norm=Norm.l0, target=None, steps=100, population=400)
        x_adv = attack(model, x, y, epsilon=1)
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.l0,)
    access: ClassVar[Access] = Access.query

    steps: int
    population: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "steps", at_least=1)
        require(self, "population", at_least=4)

    @torch.no_grad()
    def attack_remaining(self, state: AttackState, epsilon: float) -> None:
        if epsilon < 1:
            return
        for attempt in state.attempts(None):
            state.take(attempt, *self.run(state.model, attempt, epsilon))

    def run(self, model: nn.Module, attempt: Attempt, epsilon: float) -> tuple[Tensor, Tensor]:
        """Run the attack once; return the image found for each row of `attempt` and its margin."""
        found, margins = attempt.x.clone(), attempt.x.new_full((len(attempt.x),), -torch.inf)
        rows = torch.arange(len(found), device=found.device)
        pixels = min(ceil(int(epsilon) / found.shape[1]), found[0, 0].numel())
        shape = (len(found), self.population, pixels, 1)
        places = [torch.rand(shape, device=found.device, dtype=found.dtype) for _ in range(2)]
        values = MEAN + SPREAD * torch.randn(*shape[:3], found.shape[1], device=found.device, dtype=found.dtype)
        people = torch.cat([*places, values], 3).clamp(0, 1)
        score, margin = self.ask(model, attempt, rows, people, epsilon)
        for step in range(self.steps + 1):
            best = score.argmax(1)
            each = torch.arange(len(rows), device=rows.device)
            found[rows], margins[rows] = changed(attempt.x[rows], people[each, best], epsilon), margin[each, best]
            kept = margins[rows] <= 0
            rows, people, score, margin = rows[kept], people[kept], score[kept], margin[kept]
            if not len(rows) or step == self.steps:
                break
            children = evolved(people)
            its_score, its_margin = self.ask(model, attempt, rows, children, epsilon)
            better = its_score > score
            people = torch.where(better[:, :, None, None], children, people)
            score, margin = torch.where(better, its_score, score), torch.where(better, its_margin, margin)
        return found, margins

    def ask(
        self, model: nn.Module, attempt: Attempt, rows: Tensor, people: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """The scores of the candidates [n, P, pixels, 2 + C] of each row and their margins of the goal, [n, P]."""
        of_row, count = rows.repeat_interleave(people.shape[1]), people.shape[1]
        parts = zip(torch.split(of_row, TOGETHER), torch.split(people.flatten(0, 1), TOGETHER), strict=True)
        logits = torch.cat([logits_of(model, changed(attempt.x[row], part, epsilon)) for row, part in parts])
        y, target = attempt.y[of_row], None if attempt.target is None else attempt.target[of_row]
        score = per_image_loss(Loss.ce, y, target, above_all=True)(logits)
        return score.view(len(rows), count), attempt.margin(logits, of_row).view(len(rows), count)


def evolved(people: Tensor) -> Tensor:
    """For each candidate [n, P, …] the sum of another and half the difference of two more.

    Values that leave [0, 1] are drawn again.
    """
    n, count = people.shape[:2]
    # three candidates for each, different from each other and from it: shifts of one random order by different amounts
    order = torch.rand(n, count, device=people.device).argsort(1)
    place = order.argsort(1)
    shifts = torch.rand(n, count - 1, device=people.device).argsort(1)[:, :3] + 1
    mixed = []
    for number in range(3):
        other = order.gather(1, (place + shifts[:, number, None]) % count)
        mixed.append(people.gather(1, other.view(n, count, 1, 1).expand_as(people)))
    children = mixed[0] + SCALE * (mixed[1] - mixed[2])
    return torch.where((children >= 0) & (children <= 1), children, torch.rand_like(children))


def changed(x: Tensor, changes: Tensor, epsilon: float) -> Tensor:
    """The images x with the pixels of `changes`; of the values that change, the `epsilon` that change most are kept."""
    return project(painted(x, changes), x, epsilon, Norm.l0)


def painted(x: Tensor, changes: Tensor) -> Tensor:
    """The images x [N, C, H, W] with the pixels of `changes` [N, pixels, 2 + C]: row and column as shares, colour."""
    height, width = x.shape[2:]
    row = (changes[:, :, 0] * height).long().clamp(max=height - 1)
    column = (changes[:, :, 1] * width).long().clamp(max=width - 1)
    place = (row * width + column)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).scatter(2, place, changes[:, :, 2:].transpose(1, 2)).view_as(x)
