"""The distance to the k-th nearest training image, in feature space.

Sun, Ming, Zhu and Li 2022, arXiv 2204.06507.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from trustml_cli.models.features import ModelOutputs
from trustml_cli.ood.detector import Detector, FittedState, Fitting, exact
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(Detector):
    """Euclidean distance of the normalised features to the `k`-th nearest normalised training features."""

    k: int

    def __post_init__(self) -> None:
        require(self, "k", at_least=1)

    def check(self, images: int) -> None:
        if self.k > images:
            raise ValueError(f"k: must be at most {images}, the number of training images, got {self.k}")

    def fit(self, training: Fitting, validation: Fitting) -> FittedState:
        return {"references": functional.normalize(training.outputs.features, dim=1)}

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return nearest_neighbour_score(outputs.features, learned["references"], self.k)


def nearest_neighbour_score(features: Tensor, references: Tensor, k: int) -> Tensor:
    """‖z − z₍ₖ₎‖₂ with z = h/‖h‖₂ of features h [N, D], z₍ₖ₎ the k-th nearest of the unit vectors `references` [M, D].

    float64 [N], in [0, 2]. For unit vectors, the nearest are those with the largest inner product.
    """
    unit = functional.normalize(features, dim=1)
    largest = (unit @ references.T).topk(k, dim=1, sorted=False)
    kth = largest.indices.gather(1, largest.values.argmin(1, keepdim=True))[:, 0]
    return exact((unit - references[kth]).norm(dim=1))  # 2 − 2·product would cancel for small distances
