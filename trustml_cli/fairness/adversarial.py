"""Adversarial debiasing: a classifier is trained so that its score does not reveal the sensitive attributes.

Zhang, Lemoine and Mitchell 2018, arXiv 1801.07593; the minimax game without their projection term, as in Louppe,
Kagan and Cranmer 2017, arXiv 1611.01046.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.minibatches import descend, fit_minibatches

FALLS = 1e-3  # nats
PATIENCE = 50  # epochs


def log_odds(logits: Tensor) -> Tensor:
    """The log-odds of class 1, [N], of logits [N, 2]; their sigmoid is the probability of class 1."""
    return logits[:, 1] - logits[:, 0]


class Adversary(nn.Module):
    """Predicts the group by each sensitive attribute from the classifier's log-odds alone.

    `hidden` are the widths of the hidden layers, each followed by ReLU; `groups` the numbers of groups by attribute.
    """

    def __init__(self, hidden: Sequence[int], groups: Sequence[int]) -> None:
        super().__init__()
        widths = [1, *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(widths, hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], sum(groups)))
        self.groups = list(groups)

    def forward(self, odds: Tensor) -> tuple[Tensor, ...]:
        """For each attribute the logits [N, G] of its groups, from log-odds [N]."""
        return self.body(odds[:, None]).split(self.groups, dim=1)  # type: ignore[no-any-return]

    def losses(self, odds: Tensor, sensitive: Tensor) -> Tensor:
        """Mean cross-entropy (nats) for each attribute, [A]; `sensitive` are the true groups, int64 [N, A].

        A loss equal to the entropy of the group shares means that the adversary has learned nothing beyond these
        shares.
        """
        guesses = self(odds)
        return torch.stack([functional.cross_entropy(guess, sensitive[:, a]) for a, guess in enumerate(guesses)])


@dataclass(frozen=True, kw_only=True)
class AdversarialDebiasing:
    """min over the classifier, max over the adversary, of  L_y − Σ λ_A · L_A.

    L_y is the classifier's cross-entropy, L_A the adversary's for attribute A, and `strength` holds the λ_A. In each of
    `rounds`, the adversary is trained for one epoch on its own losses, in batches of `adversary_batch_size`, then the
    classifier takes one step on a random batch of `batch_size`. Both use Adam; the classifier's learning rate decays
    from `lr` to zero along half a cosine, so that the game converges. `weight_decay` (L2) keeps the classifier from
    memorising the groups of the training rows, which would look fair on these rows only.
    """

    strength: Sequence[float]
    rounds: int
    batch_size: int
    lr: float
    weight_decay: float
    adversary_batch_size: int
    adversary_lr: float

    def pretrain(self, adversary: Adversary, odds: Tensor, sensitive: Tensor, epochs: int) -> None:
        """Fit `adversary` to the groups for fixed log-odds."""
        optimizer = torch.optim.Adam(adversary.parameters(), self.adversary_lr)
        for _ in range(epochs):
            self.pursue(adversary, optimizer, odds, sensitive)

    def converge(self, adversary: Adversary, odds: Tensor, sensitive: Tensor, epochs: int) -> int:
        """`pretrain` until the losses stop falling, for at most `epochs`; returns the number of epochs.

        They have stopped when their sum has not fallen more than `FALLS` below its lowest value for `PATIENCE` epochs.
        """
        optimizer = torch.optim.Adam(adversary.parameters(), self.adversary_lr)
        lowest, since = inf, 0
        for number in range(1, epochs + 1):
            self.pursue(adversary, optimizer, odds, sensitive)
            with torch.no_grad():
                loss = adversary.losses(odds, sensitive).sum().item()
            lowest, since = (loss, 0) if loss < lowest - FALLS else (lowest, since + 1)
            if since == PATIENCE:
                return number
        return epochs

    def pursue(self, adversary: Adversary, optimizer: torch.optim.Optimizer, odds: Tensor, sensitive: Tensor) -> None:
        """Train `adversary` for one epoch over all rows."""
        fit_minibatches(
            lambda rows: adversary.losses(odds[rows], sensitive[rows]).sum(),
            optimizer,
            lambda: torch.randperm(len(odds)).to(odds.device),
            self.adversary_batch_size,
        )

    def play(
        self, classifier: nn.Module, adversary: Adversary, x: Tensor, y: Tensor, sensitive: Tensor
    ) -> Iterator[Tensor]:
        """Train both networks; yields the classifier's loss after each round. Uses torch's global random generator.

        `classifier` maps features x [N, D] to logits [N, 2], y are labels 0 or 1, [N], and `sensitive` the groups by
        attribute, int64 [N, A]. Both networks change in place.
        """
        learning = [weight for weight in classifier.parameters() if weight.requires_grad]
        minimize = torch.optim.Adam(learning, self.lr, weight_decay=self.weight_decay)
        maximize = torch.optim.Adam(adversary.parameters(), self.adversary_lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(minimize, T_max=self.rounds)
        strength = torch.as_tensor(self.strength, device=x.device)
        for _ in range(self.rounds):
            classifier.eval()
            with torch.no_grad():
                odds = log_odds(classifier(x))
            self.pursue(adversary, maximize, odds, sensitive)
            classifier.train()
            batch = torch.randint(len(x), (self.batch_size,)).to(x.device)
            logits = classifier(x[batch])
            give_away = adversary.losses(log_odds(logits), sensitive[batch])
            loss = functional.cross_entropy(logits, y[batch]) - (strength * give_away).sum()
            descend(minimize, loss)
            schedule.step()
            yield loss.detach()
