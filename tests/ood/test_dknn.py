"""Deep k-nearest neighbours: by hand, against scikit-learn, and attacked."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.ood.conftest import World
from trustml_cli.ood.detector import FittedState
from trustml_cli.ood.dknn import (
    DeepNearestNeighbours,
    Support,
    disagreement,
    nearest_references,
    neighbour_attack,
    p_values,
)

DKNN = DeepNearestNeighbours(k=20, layers=["8"], references=10_000)


def test_p_values_and_what_follows_from_them_by_hand() -> None:
    calibration, alpha = torch.tensor([4, 0, 2, 2]), torch.tensor([[0, 1, 2], [5, 4, 3]])
    values = p_values(alpha, calibration)
    assert values.tolist() == [[1, 0.75, 0.75], [0, 0.25, 0.25]]
    support = Support(values - torch.tensor([0, 0, 0.5]), values[None], torch.zeros(1, 2, 1).long())
    assert support.predicted.tolist() == [0, 1]
    assert support.credibility.tolist() == [1, 0.25]
    assert support.confidence.tolist() == [0.25, 1]


def test_neighbours_of_other_classes_are_counted_in_every_layer() -> None:
    learned = {"labels": torch.tensor([2, 0, 2, 1]), "classes": torch.tensor(3)}
    neighbours = torch.tensor([[[0, 1, 2]], [[3, 1, 0]]])
    assert disagreement(neighbours, learned).tolist() == [[[2, 3, 1]], [[2, 2, 2]]]


def test_neighbours_are_those_of_scikit_learn(world: World) -> None:
    from sklearn.neighbors import NearestNeighbors

    learned, layers = world.fit(DKNN), DKNN.layers_of(world.network, world.training)
    seen, training = (world.outputs(x, layers).layers for x in (world.outliers, world.training))
    assert layers == ["1", "2"]
    for found, name in zip(nearest_references(seen, learned, 20), layers, strict=True):
        mean = training[name].mean(0)
        peer = NearestNeighbors(n_neighbors=20, metric="cosine").fit(training[name] - mean)
        distances, _ = peer.kneighbors(seen[name] - mean)
        ours = 1 - functional.cosine_similarity((seen[name] - mean)[:, None], (training[name] - mean)[found], dim=2)
        torch.testing.assert_close(ours.double(), torch.from_numpy(distances).double(), rtol=0, atol=1e-5)


def test_calibration_images_are_judged_by_their_own_class(world: World) -> None:
    learned = world.fit(DKNN)
    assert learned["calibration"].shape == (2, 60)
    assert not learned["calibration"].any()  # all 20 neighbours are of the image's class
    assert DKNN.support(world.outputs(world.inliers, ["1", "2"]), learned).predicted.equal(world.labels[:60])


def accuracy(world: World, x: Tensor, learned: FittedState) -> float:
    support = DKNN.support(world.outputs(x, ["1", "2"]), learned)
    return (support.predicted == world.labels[: len(x)]).double().mean().item()


def test_the_attack_on_neighbours_finds_other_ones_within_its_budget(world: World) -> None:
    learned, x = world.fit(DKNN), world.inliers.clamp(0, 1)
    attacked = neighbour_attack(world.network, x, world.labels[:60], learned, ["1", "2"], 20, 0.45, 10)
    assert (attacked - x).abs().max() == pytest.approx(0.45, abs=1e-6)
    whole = neighbour_attack(world.network, x, world.labels[:60], learned, ["1", "2"], 20, 0.99, 10)
    assert whole.min() == 0
    assert accuracy(world, x, learned) == 1
    assert accuracy(world, attacked, learned) == 0
    weak = neighbour_attack(world.network, x, world.labels[:60], learned, ["1", "2"], 20, 0.2, 10)
    assert accuracy(world, weak, learned) == 1
    random = (x + 0.45 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 1)
    assert accuracy(world, random, learned) > 0.4


def test_more_neighbours_than_references_are_refused() -> None:
    DeepNearestNeighbours(k=10, layers=["1"], references=10).check(20)
    with pytest.raises(ValueError, match=r"^k: must be at most 9"):
        DeepNearestNeighbours(k=10, layers=["1"], references=9).check(20)
