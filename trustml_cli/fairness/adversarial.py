"""Adversarial debiasing: a classifier is trained so that its score does not reveal the sensitive attributes.

Zhang, Lemoine and Mitchell 2018, arXiv 1801.07593; the minimax game without their projection term, as in Louppe,
Kagan and Cranmer 2017, arXiv 1611.01046. Games oscillate, hence the weights of the last rounds can be averaged
(Izmailov et al. 2018, arXiv 1803.05407).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from trustml_cli.fairness.constraint import Constraint
from trustml_cli.models.minibatches import descend, fit_minibatches

FALLS = 1e-3  # nats
PATIENCE = 50  # epochs


def log_odds(logits: Tensor) -> Tensor:
    """The log-odds of class 1, [N], of logits [N, 2]; their sigmoid is the probability of class 1."""
    return logits[:, 1] - logits[:, 0]


class Adversary(nn.Module):
    """Predicts the group by each sensitive attribute from the classifier's log-odds.

    `hidden` are the widths of the hidden layers, each followed by ReLU; `groups` the numbers of groups by attribute.
    For equalized odds, the adversary sees the label too; for equal opportunity, rows of the label 1 alone (Zhang et al.
    2018, section 3). It then learns nothing from the log-odds if and only if the goal is reached at every threshold.
    """

    def __init__(
        self, hidden: Sequence[int], groups: Sequence[int], constraint: Constraint = Constraint.demographic_parity
    ) -> None:
        super().__init__()
        self.constraint = constraint
        widths = [3 if constraint is Constraint.equalized_odds else 1, *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(widths, hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], sum(groups)))
        self.groups = list(groups)

    def forward(self, odds: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """For each attribute the logits [N, G] of its groups, from log-odds [N] and labels 0 or 1, int64 [N]."""
        seen = odds[:, None]
        if self.constraint is Constraint.equalized_odds:
            seen = torch.stack([odds * labels, odds * (1 - labels), labels.to(odds)], 1)
        return self.body(seen).split(self.groups, dim=1)  # type: ignore[no-any-return]

    def losses(self, odds: Tensor, labels: Tensor, sensitive: Tensor) -> Tensor:
        """Mean cross-entropy (nats) for each attribute, [A].

        `sensitive` are the true groups, int64 [N, A], or the probabilities of the groups of all attributes, [N, ΣG].
        A loss equal to the entropy of the group shares (given the label, if the adversary sees it) means that the
        adversary has learned nothing beyond these shares. Without a row that it sees, the losses are 0.
        """
        if self.constraint is Constraint.equal_opportunity:
            seen = labels == 1
            odds, labels, sensitive = odds[seen], labels[seen], sensitive[seen]
        targets = torch.split(sensitive, self.groups, 1) if sensitive.is_floating_point() else sensitive.T
        sums = [
            functional.cross_entropy(guess, target, reduction="sum")
            for guess, target in zip(self(odds, labels), targets, strict=True)
        ]
        return torch.stack(sums) / max(1, len(odds))


@dataclass(frozen=True, kw_only=True)
class AdversarialDebiasing:
    """min over the classifier, max over the adversary, of  L_y − Σ λ_A · L_A.

    L_y is the classifier's cross-entropy, L_A the adversary's for attribute A, and `strength` holds the λ_A. In each of
    `rounds`, the adversary is trained for one epoch on its own losses, in batches of `adversary_batch_size`, then the
    classifier takes one step on a random batch of `batch_size`. Both use Adam; the classifier's learning rate decays
    from `lr` to zero along half a cosine, so that the game converges. `weight_decay` (L2) keeps the classifier from
    memorising the groups of the training rows, which would look fair on these rows only. The result has the mean of the
    classifier's weights over the share `averaged` of the rounds, the last ones; 0 takes the last weights.
    """

    strength: Sequence[float]
    rounds: int
    batch_size: int
    lr: float
    weight_decay: float
    adversary_batch_size: int
    adversary_lr: float
    averaged: float

    def pretrain(self, adversary: Adversary, odds: Tensor, labels: Tensor, sensitive: Tensor, epochs: int) -> None:
        """Fit `adversary` to the groups for fixed log-odds."""
        optimizer = torch.optim.Adam(adversary.parameters(), self.adversary_lr)
        for _ in range(epochs):
            self.pursue(adversary, optimizer, odds, labels, sensitive)

    def converge(self, adversary: Adversary, odds: Tensor, labels: Tensor, sensitive: Tensor, epochs: int) -> int:
        """`pretrain` until the losses stop falling, for at most `epochs`; returns the number of epochs.

        They have stopped when their sum has not fallen more than `FALLS` below its lowest value for `PATIENCE` epochs.
        """
        optimizer = torch.optim.Adam(adversary.parameters(), self.adversary_lr)
        lowest, since = inf, 0
        for number in range(1, epochs + 1):
            self.pursue(adversary, optimizer, odds, labels, sensitive)
            with torch.no_grad():
                loss = adversary.losses(odds, labels, sensitive).sum().item()
            lowest, since = (loss, 0) if loss < lowest - FALLS else (lowest, since + 1)
            if since == PATIENCE:
                return number
        return epochs

    def pursue(
        self,
        adversary: Adversary,
        optimizer: torch.optim.Optimizer,
        odds: Tensor,
        labels: Tensor,
        sensitive: Tensor,
    ) -> None:
        """Train `adversary` for one epoch over all rows."""
        fit_minibatches(
            lambda rows: adversary.losses(odds[rows], labels[rows], sensitive[rows]).sum(),
            optimizer,
            lambda: torch.randperm(len(odds)).to(odds.device),
            self.adversary_batch_size,
        )

    def play(
        self, classifier: nn.Module, adversary: Adversary, x: Tensor, y: Tensor, sensitive: Tensor
    ) -> Iterator[tuple[Tensor, nn.Module]]:
        """Train both networks; yields after each round the classifier's loss and the result so far.

        `classifier` maps features x [N, D] to logits [N, 2], y are labels 0 or 1, int64 [N], and `sensitive` the groups
        or their probabilities, as for `Adversary.losses`. Both networks change in place. Uses torch's global random
        generator.
        """
        learning = [weight for weight in classifier.parameters() if weight.requires_grad]
        minimize = torch.optim.Adam(learning, self.lr, weight_decay=self.weight_decay)
        maximize = torch.optim.Adam(adversary.parameters(), self.adversary_lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(minimize, T_max=self.rounds)
        strength = torch.as_tensor(self.strength, device=x.device)
        mean = AveragedModel(classifier, use_buffers=True)
        for played in range(1, self.rounds + 1):
            classifier.eval()
            with torch.no_grad():
                odds = log_odds(classifier(x))
            self.pursue(adversary, maximize, odds, y, sensitive)
            classifier.train()
            batch = torch.randint(len(x), (self.batch_size,)).to(x.device)
            logits = classifier(x[batch])
            give_away = adversary.losses(log_odds(logits), y[batch], sensitive[batch])
            loss = functional.cross_entropy(logits, y[batch]) - (strength * give_away).sum()
            descend(minimize, loss)
            schedule.step()
            if averages := played > (1 - self.averaged) * self.rounds:
                mean.update_parameters(classifier)
            yield loss.detach(), mean.module if averages else classifier
