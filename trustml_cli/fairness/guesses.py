"""Guesses of people's groups from a classifier's score, by other means than a network: the score itself, and boosting.

Whoever wants to know what a score gives away must not depend on how well one network was trained. Both are fitted to
`known` rows and say of other ones how likely each group is, by attribute float64 [N, G].
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trustml_cli.fairness.measure import Scored, area

LEAF = 20  # rows at least
FEWEST = 3  # rows of a group from which on boosting can hold some out to stop by


def guesses_by_score(known: Scored, asked: Scored, groups: Sequence[int]) -> list[Tensor]:
    """The log-odds, with the sign that tells each group best from the others among the known rows."""
    every = []
    for group, count in zip(known.sensitive.T, groups, strict=True):
        upwards = [area(group == number, known.odds) >= 0.5 for number in range(count)]
        signs = torch.tensor([1.0 if up else -1.0 for up in upwards], dtype=torch.float64)
        every.append(asked.odds.double()[:, None] * signs)
    return every


def guesses_by_boosting(known: Scored, asked: Scored, groups: Sequence[int], seed: int) -> list[Tensor]:
    """The probabilities of gradient-boosted trees on the log-odds (Friedman 2001), small ones, stopped early."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    every = []
    for group, count in zip(known.sensitive.T, groups, strict=True):
        likely = torch.zeros(len(asked.odds), count, dtype=torch.float64)
        present, sizes = np.unique(group.cpu().numpy(), return_counts=True)
        if len(present) > 1:
            trees = HistGradientBoostingClassifier(
                max_iter=200,
                learning_rate=0.05,
                max_leaf_nodes=4,
                min_samples_leaf=LEAF,
                early_stopping=bool(sizes.min() >= FEWEST),
                validation_fraction=0.2,
                n_iter_no_change=20,
                random_state=seed,
            )
            trees.fit(known.odds.cpu().numpy()[:, None], group.cpu().numpy())
            likely[:, present] = torch.from_numpy(trees.predict_proba(asked.odds.cpu().numpy()[:, None]))
        every.append(likely)
    return every
