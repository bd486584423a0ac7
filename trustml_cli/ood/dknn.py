"""Deep k-nearest neighbours (DkNN): whether the training images that a network sees as similar support its answer.

Papernot and McDaniel 2018, arXiv 1803.04765. Neighbours are found exactly, by brute force, not by hashing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.features import ModelOutputs, choose_layers, model_outputs
from trustml_cli.models.inference import gradient_wrt
from trustml_cli.ood.detector import Detector, FittedState, Fitting
from trustml_cli.system.ranges import require


@dataclass(frozen=True)
class Support:
    """What the neighbours say about N images, of K classes, in L layers.

    `p_values` [N, K] are the shares of calibration images that are supported at most as well for their own class as
    the image is for each class; `by_layer` [L, N, K] are the same from one layer at a time; float64 on the CPU.
    `neighbours` [L, N, k] are the indices of the references, the nearest first.
    """

    p_values: Tensor
    by_layer: Tensor
    neighbours: Tensor

    @property
    def predicted(self) -> Tensor:
        """The class with the largest p-value, [N]."""
        return self.p_values.argmax(1)

    @property
    def credibility(self) -> Tensor:
        """The largest p-value, [N], in [0, 1]."""
        return self.p_values.amax(1)

    @property
    def confidence(self) -> Tensor:
        """One minus the second largest p-value, [N], in [0, 1]."""
        return 1 - self.p_values.topk(2, dim=1).values[:, 1]


@dataclass(frozen=True, kw_only=True)
class DeepNearestNeighbours(Detector):
    """One minus the credibility: the nonconformity with the `k` nearest training images in each of `layers`.

    Similarity is the cosine of centred layer outputs. `layers` are names of modules or one number of layers (see
    `choose_layers`). At most `references` random training images are neighbours; the validation images calibrate.
    """

    k: int
    layers: list[str]
    references: int

    def __post_init__(self) -> None:
        require(self, "k", "references", at_least=1)

    @property
    def learns_from(self) -> int | None:
        return self.references

    def layers_of(self, network: nn.Module, x: Tensor) -> list[str]:
        return choose_layers(network, x, self.layers)

    def check(self, images: int) -> None:
        if self.k > min(images, self.references):
            most = min(images, self.references)
            raise ValueError(f"k: must be at most {most}, the number of references, got {self.k}")

    def fit(self, training: Fitting, validation: Fitting) -> FittedState:
        outputs = training.outputs
        learned = {"labels": training.labels, "classes": torch.tensor(outputs.logits.shape[1])}
        for name, values in outputs.layers.items():
            learned |= {f"mean.{name}": values.mean(0), f"references.{name}": directions(values, values.mean(0))}
        of_class = disagreement(nearest_references(validation.outputs.layers, learned, self.k), learned)
        own = of_class.gather(2, validation.labels.cpu().expand(len(of_class), -1)[:, :, None])
        return {**learned, "calibration": own[:, :, 0]}

    def score(self, x: Tensor, outputs: ModelOutputs, learned: FittedState) -> Tensor:
        return 1 - self.support(outputs, learned).credibility

    def support(self, outputs: ModelOutputs, learned: FittedState) -> Support:
        """What the neighbours of images say, from the network's outputs for them."""
        neighbours = nearest_references(outputs.layers, learned, self.k)
        of_class, calibration = disagreement(neighbours, learned), learned["calibration"]
        by_layer = [p_values(alpha, known) for alpha, known in zip(of_class, calibration, strict=True)]
        return Support(p_values(of_class.sum(0), calibration.sum(0)), torch.stack(by_layer), neighbours)


def directions(values: Tensor, mean: Tensor) -> Tensor:
    """Layer outputs [N, D] as unit vectors [N, D] from the mean [D] of the training images."""
    return functional.normalize(values - mean, dim=1)


def nearest_references(layers: Mapping[str, Tensor], learned: FittedState, k: int) -> Tensor:
    """The `k` references with the largest cosine in each layer, the nearest first: int64 [L, N, k] on the CPU."""
    found = []
    for name, values in layers.items():
        cosines = directions(values, learned[f"mean.{name}"]) @ learned[f"references.{name}"].T
        found.append(cosines.topk(k, dim=1).indices.cpu())
    return torch.stack(found)


def disagreement(neighbours: Tensor, learned: FittedState) -> Tensor:
    """The number of neighbours [L, N, k] that are not of each class, int64 [L, N, K]: the nonconformity α."""
    classes = learned["labels"].cpu()[neighbours]
    none = torch.zeros(*neighbours.shape[:2], int(learned["classes"]), dtype=torch.int64)
    votes = none.scatter_add(2, classes, torch.ones_like(classes))
    return neighbours.shape[2] - votes


def p_values(alpha: Tensor, calibration: Tensor) -> Tensor:
    """The share of the calibration images' α [M] that is at least α [N, K]: float64 [N, K], in [0, 1]."""
    less = torch.searchsorted(calibration.sort().values, alpha.contiguous())
    return 1 - less.double() / len(calibration)


def neighbour_attack(
    network: nn.Module, x: Tensor, y: Tensor, learned: FittedState, layers: Sequence[str], k: int, epsilon: float,
    steps: int,
) -> Tensor:  # fmt: skip
    """Images within L∞ `epsilon` of x [N, C, H, W], in [0, 1], whose neighbours are to be of a class other than y [N].

    Sitawarin and Wagner 2020, arXiv 2003.06559, with their guides by class, here within a budget: projected gradient
    ascent on the mean cosine with the k nearest references of another class less that with the k nearest of y, over
    all layers. The class is the one that is supported best at x. The best images of all steps are returned.
    """
    with torch.no_grad():
        of_class = disagreement(nearest_references(model_outputs(network, x, layers).layers, learned, k), learned)
    rivals = of_class.sum(0).scatter(1, y.cpu()[:, None], k * len(layers) + 1).argmin(1).to(y.device)
    best, largest = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    x_adv = x.clone()
    for step in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            outputs = model_outputs(network, x_adv, layers).layers
            lead = neighbour_lead(outputs, learned, y, rivals, k)
        better = lead.detach() > largest
        best[better], largest[better] = x_adv.detach()[better], lead.detach()[better]
        if step < steps:
            gradient = gradient_wrt(x_adv, lead.sum())
            x_adv = x_adv.detach() + 2.5 * epsilon / steps * gradient.sign()
            x_adv = torch.min(torch.max(x_adv, x - epsilon), x + epsilon).clamp(0, 1)
    return best


def neighbour_lead(layers: Mapping[str, Tensor], learned: FittedState, y: Tensor, rivals: Tensor, k: int) -> Tensor:
    """The mean cosine with the `k` nearest references of class `rivals` less that of class y, over all layers, [N]."""
    lead = torch.zeros(len(y), device=y.device)
    for name, values in layers.items():
        cosines = directions(values, learned[f"mean.{name}"]) @ learned[f"references.{name}"].T
        for classes, sign in ((rivals, 1), (y, -1)):
            of_class = learned["labels"] == classes[:, None]  # [N, references]
            near = cosines.where(of_class, -1.0).topk(min(k, cosines.shape[1]), dim=1).values
            lead = lead + sign * near.mean(1) / len(layers)
    return lead
