"""Extraction of any classifier: a student network is trained on the victim's answers.

Tramèr et al. 2016, arXiv 1609.02943, section 6 (retraining); Papernot, McDaniel, Goodfellow, Jha, Celik and Swami
2016, "Practical Black-Box Attacks against Machine Learning", arXiv 1602.02697 (Jacobian augmentation).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.extraction.thief import Means, Thief
from trustml_cli.extraction.victim import CHUNK, Answer, Victim
from trustml_cli.models.minibatches import descend
from trustml_cli.system.ranges import require


class Source(Enum):
    """Where queries come from."""

    noise = "noise"
    """Uniformly random pixels in [0, 1]."""
    held_out = "held_out"
    """The thief's own images; if there are too few, they are augmented along the sign of the student's Jacobian."""
    jacobian = "jacobian"
    """A few own images, augmented in the same way."""


@dataclass(frozen=True, kw_only=True)
class Distill(Thief):
    """Trains a student on the victim's answers, with cross-entropy loss.

    `answer` is the kind of answer that is queried: `labels` are hard targets; `probabilities`, and the softmax of
    `logits`, are soft targets. `source: held_out` starts with as many own images as there are, `jacobian` with `seeds`
    of them; each round then doubles the queries by x + `step`·sign(∂ student's logit of the victim's label / ∂x),
    clipped to [0, 1], until the budget is used. In each round the student is trained with Adam in batches of
    `batch_size` for `epochs`, or more if these are less than `steps` batches, with a learning rate that decays from
    `lr` to zero along half a cosine.
    """

    answer: Answer
    source: Source
    seeds: int
    step: float
    epochs: int
    steps: int
    batch_size: int
    lr: float

    def __post_init__(self) -> None:
        require(self, "seeds", "epochs", "steps", "batch_size", at_least=1)
        require(self, "step", above=0, at_most=1)
        require(self, "lr", above=0)

    @property
    def needs(self) -> Answer:
        return self.answer

    def check(self, queries: int, images: int) -> None:
        wanted = min(self.seeds, queries) if self.source is Source.jacobian else 0
        if wanted > images:
            raise ValueError(f"{wanted} held-out images are needed as queries, but there are {images}")

    def __call__(self, victim: Victim, queries: int, means: Means) -> nn.Module:
        student = means.student().to(means.device)
        for x, answers in self.rounds(victim, queries, means, student):
            self.train(student, x, answers, means)
        return student.eval().requires_grad_(False)

    def rounds(self, victim: Victim, queries: int, means: Means, student: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all queries so far with their answers, once per training of the student."""
        if self.source is Source.noise:
            x = torch.rand(queries, *victim.shape, generator=means.random)
        else:
            first = min(queries, self.seeds) if self.source is Source.jacobian else queries
            x = means.images[torch.randperm(len(means.images), generator=means.random)[:first]]
        answers = self.ask(victim, x)
        yield x, answers
        while len(x) < queries:
            order = torch.randperm(len(x), generator=means.random)[: queries - len(x)]
            label = answers[order] if answers.dim() == 1 else answers[order].argmax(1)
            new = augmented(student, x[order], label, self.step, means.device)
            x, answers = torch.cat([x, new]), torch.cat([answers, self.ask(victim, new)])
            yield x, answers

    def ask(self, victim: Victim, x: Tensor) -> Tensor:
        """Training targets of the student: classes [N], or probabilities [N, K]."""
        if self.answer is Answer.labels:
            return victim.labels(x)
        if self.answer is Answer.logits:
            return victim.logits(x).softmax(1)
        told = victim.probabilities(x)
        return told / told.sum(1, keepdim=True).clamp(min=1e-6)  # rounded probabilities need not add up to 1

    def train(self, student: nn.Module, x: Tensor, answers: Tensor, means: Means) -> None:
        """Train the student on the answers, starting from its current weights."""
        student.train()
        x, answers = x.to(means.device), answers.to(means.device)
        if len(x) == 1:
            x, answers = torch.cat([x, x]), torch.cat([answers, answers])  # BatchNorm takes no batch of one
        batches = -(-len(x) // self.batch_size)
        epochs = max(self.epochs, -(-self.steps // batches))
        optimizer = torch.optim.Adam(student.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=means.random).to(means.device).tensor_split(batches):
                descend(optimizer, functional.cross_entropy(student(x[rows]), answers[rows]))
                schedule.step()
        student.eval()


def augmented(student: nn.Module, x: Tensor, labels: Tensor, step: float, device: torch.device) -> Tensor:
    """Each x + step·sign(∂ logit of its label / ∂x), clipped to [0, 1]; `labels` are the victim's, [N]."""
    moved = []
    for part, label in zip(torch.split(x, CHUNK), torch.split(labels, CHUNK), strict=True):
        point = part.detach().to(device).requires_grad_(True)
        chosen = student(point).gather(1, label.to(device)[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, point)
        moved.append((part + step * gradient.sign().cpu()).clamp(0, 1))
    return torch.cat(moved)
