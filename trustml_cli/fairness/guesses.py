"""Predictions of the sensitive group from a classifier's score, without a network: the score itself, and boosting.

How much a score reveals should not be judged by how well one adversary network was trained. Both predictors are
fitted to the rows `known` and return, for the rows `asked`, the likelihood of each group by attribute, float64 [N, G].
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trustml_cli.fairness.measure import Scored, area

LEAF = 20  # minimum rows per leaf
FEWEST = 3  # minimum rows per group for boosting to hold some out for early stopping


def guesses_by_score(known: Scored, asked: Scored, groups: Sequence[int]) -> list[Tensor]:
    """The log-odds, with the sign that best separates each group from the others among the known rows."""
    every = []
    for group, count in zip(known.sensitive.T, groups, strict=True):
        upwards = [area(group == number, known.odds) >= 0.5 for number in range(count)]
        signs = torch.tensor([1.0 if up else -1.0 for up in upwards], dtype=torch.float64)
        every.append(asked.odds.double()[:, None] * signs)
    return every


def guesses_by_boosting(known: Scored, asked: Scored, groups: Sequence[int], seed: int) -> list[Tensor]:
    """Probabilities from small gradient-boosted trees on the log-odds (Friedman 2001), with early stopping."""
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
