"""Probabilities of the groups given the features, for an adversary that cannot be fooled by rows learnt by heart.

A classifier in a game memorises the groups of its training rows: there the adversary then finds nothing, on other rows
it does. A score is independent of the groups if and only if it is independent of their probabilities given the
features, which are the same for rows that are alike. They replace the groups where these are unknown too (Chen, Kallus,
Mao, Svacha and Udell 2019, arXiv 1811.11154). Each row's are predicted from other rows (cross-fitting, Chernozhukov et
al. 2018, arXiv 1608.00060).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def expected_groups(x: Tensor, sensitive: Tensor, groups: Sequence[int], fold: Tensor) -> Tensor:
    """Probabilities of the groups of all attributes side by side, float32 [N, ΣG], summing to 1 for each attribute.

    They are predicted from features x [N, D] by multinomial logistic regressions on standardised features, each fitted
    to the rows of the other folds. `sensitive` are the groups, int64 [N, A], `groups` their numbers by attribute,
    and `fold` the fold of each row, int64 [N], of which there are at least two.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, numbers = x.cpu().numpy(), sensitive.cpu().numpy()
    parts = [torch.zeros(len(x), count) for count in groups]
    for each in torch.unique(fold):
        asked = (fold == each).cpu()
        known = (~asked).numpy()
        for part, group in zip(parts, numbers.T, strict=True):
            present = sorted(set(group[known].tolist()))
            if len(present) == 1:
                part[asked, present[0]] = 1.0
                continue
            fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
                features[known], group[known]
            )
            likely = torch.from_numpy(fitted.predict_proba(features[asked.numpy()])).float()
            part[asked] = torch.zeros(len(likely), part.shape[1]).index_copy(1, torch.tensor(present), likely)
    return torch.cat(parts, 1).to(x.device)
