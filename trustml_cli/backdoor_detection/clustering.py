"""Activation clustering.

Chen et al. 2018, arXiv 1811.03728.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from torch import Tensor

from trustml_cli.backdoor_detection.suspicion import Finding, Inspection, Suspicion
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class ActivationClustering(Suspicion):
    """Divides the latents of each class, reduced to `dimensions` by PCA, into two clusters by k-means.

    The score is (d_large − d_small) / (d_large + d_small), from the distances to the centres of the larger and the
    smaller cluster. An example is flagged in the smaller cluster, where that holds a share below `size` of the class
    and the mean silhouette is above `silhouette`; these two do not depend on any data.
    """

    dimensions: int
    size: float
    silhouette: float

    def __post_init__(self) -> None:
        require(self, "dimensions", at_least=1)
        require(self, "size", above=0, at_most=0.5)
        require(self, "silhouette", at_least=-1, at_most=1)

    def inspect(self, seen: Inspection) -> Finding:
        scores = torch.zeros(len(seen.suspects.labels)).double()
        flagged = torch.zeros(len(scores), dtype=torch.bool)
        for number in sorted(set(seen.suspects.labels.tolist())):
            mine = seen.suspects.labels == number
            scores[mine], small, share, silhouette = two_clusters(seen.suspects.latents[mine], self.dimensions)
            flagged[mine] = small & (share < self.size) & (silhouette > self.silhouette)
        return Finding(scores, flagged)


def two_clusters(latents: Tensor, dimensions: int) -> tuple[Tensor, Tensor, float, float]:
    """For latents [N, D] the scores, [N], the members of the smaller cluster, bool [N], its share, and the silhouette.

    Fewer than three latents, or equal ones, are one cluster: scores 0, no member, share 0 and silhouette −1.
    """
    if len(latents) < 3 or torch.equal(latents, latents[:1].expand_as(latents)):
        return torch.zeros(len(latents)).double(), torch.zeros(len(latents), dtype=torch.bool), 0.0, -1.0
    values: NDArray[np.float64] = latents.numpy()
    reduced = PCA(min(dimensions, *values.shape), svd_solver="full").fit_transform(values)
    clusters = KMeans(n_clusters=2, n_init=10, random_state=0).fit(reduced)
    small = int(np.bincount(clusters.labels_, minlength=2).argmin())
    distances = clusters.transform(reduced)
    near, far = torch.from_numpy(distances[:, small]), torch.from_numpy(distances[:, 1 - small])
    members = torch.from_numpy(clusters.labels_ == small)
    scores = (far - near) / (far + near).clamp(min=1e-12)
    return scores, members, float(members.double().mean()), float(silhouette_score(reduced, clusters.labels_))
