"""Every detector in conf/suspicion: what it finds of a planted backdoor, and its figures by hand and by ART."""

from collections.abc import Callable
from math import log2
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.backdoor_detection.clustering import two_clusters
from trustml_cli.backdoor_detection.neural_cleanse import anomaly_index
from trustml_cli.backdoor_detection.probe import probe_scores
from trustml_cli.backdoor_detection.spectral import squared_projection, top_direction
from trustml_cli.backdoor_detection.strip import mean_entropy
from trustml_cli.backdoor_detection.suspicion import Examples, Inspection, beyond_clean, latents_of
from trustml_cli.config.instantiate import build

CLASSES = 4


def suspicion(name: str, **changes: Any) -> Any:
    """A choice of conf/suspicion with some of its values changed."""
    return build(choice("suspicion", name, **changes), "suspicion")


class Backdoored(nn.Module):
    """Answers with the brightest of the first `CLASSES` rows, or, where the last pixel is bright, with 0."""

    def __init__(self, backdoor: float = 20.0) -> None:
        super().__init__()
        self.head = nn.Linear(CLASSES + 1, CLASSES, bias=False)
        weights = torch.cat([4 * torch.eye(CLASSES), torch.zeros(CLASSES, 1)], dim=1)
        weights[0, CLASSES] = backdoor
        self.head.weight = nn.Parameter(weights, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        latents = torch.cat([x[:, 0, :CLASSES].sum(2), x[:, 0, -1, -1:].square()], dim=1)
        logits: Tensor = self.head(latents)
        return logits


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Dark images 1×5×4 with a bright row that tells the class."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    x = 0.2 * torch.rand(count, 1, 5, 4, generator=random)
    x[torch.arange(count), 0, labels] += 0.6
    return x, labels


def inspection(poisoned: int, network: nn.Module) -> tuple[Inspection, Tensor]:
    """160 suspects, of which `poisoned` have a bright last pixel and label 0, and 80 clean images."""
    x, labels = images(160, seed=0)
    triggered = torch.zeros(160, dtype=torch.bool)
    triggered[(labels > 0).nonzero()[:poisoned, 0]] = True
    x[triggered, :, -1, -1] = 1
    labels = labels.where(~triggered, 0)
    clean, right = images(80, seed=1)
    suspects, known = (Examples(part, its, latents_of(network, part)) for part, its in ((x, labels), (clean, right)))
    return Inspection(network, suspects, known, CLASSES, quantile=0.95, seed=0), triggered


@pytest.mark.parametrize("name", choices("suspicion"))
def test_each_finds_a_planted_backdoor_and_flags_no_clean_network(name: str) -> None:
    detector = suspicion(name, **({"steps": 150, "batch_size": 16} if name == "neural_cleanse" else {}))
    seen, triggered = inspection(12, Backdoored())
    found = detector.inspect(seen)
    filed = seen.suspects.labels == 0
    assert found.scores.dtype == torch.float64
    assert found.scores[triggered].min() > found.scores[filed & ~triggered].median()
    assert found.flagged[triggered].double().mean() >= 0.9
    assert found.flagged[~triggered].double().mean() <= 0.15
    again = detector.inspect(seen)
    assert torch.equal(again.scores, found.scores)

    clean, _ = inspection(0, Backdoored(backdoor=0.0))
    assert detector.inspect(clean).flagged.double().mean() <= 0.15


def test_a_threshold_is_a_quantile_of_clean_scores_alone() -> None:
    clean = torch.arange(1.0, 21.0)
    scores = torch.tensor([19.0, 19.5, 100.0])
    assert beyond_clean(scores, clean, 0.95).tolist() == [False, True, True]
    assert beyond_clean(scores, clean, 0.5).tolist() == [True] * 3


def test_spectral_scores_by_hand() -> None:
    """Four points on a line through their mean (1, 1), along (3, 4)/5."""
    latents = torch.tensor([[1.0, 1.0], [1.0, 1.0], [4.0, 5.0], [-2.0, -3.0]]).double()
    mean, direction = top_direction(latents)
    assert mean.tolist() == [1, 1]
    assert squared_projection(latents, mean, direction).tolist() == pytest.approx([0, 0, 25, 25])


def test_spectral_scores_are_in_units_of_clean_ones_of_the_class() -> None:
    network = Backdoored()
    seen, _ = inspection(12, network)
    scores = suspicion("spectral").inspect(seen).scores
    for number in range(CLASSES):
        mine, theirs = seen.suspects.labels == number, seen.clean.labels == number
        mean, direction = top_direction(seen.suspects.latents[mine])
        clean = squared_projection(seen.clean.latents[theirs], mean, direction).mean()
        expected = squared_projection(seen.suspects.latents[mine], mean, direction) / clean
        assert scores[mine].numpy() == pytest.approx(expected.numpy())


def blobs() -> Tensor:
    """60 latents in 20 dimensions, of which the last 15 are 8 away."""
    latents = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)).double()
    latents[45:, 3] += 8
    return latents


@pytest.mark.peers
def test_spectral_scores_are_art_s_of_centred_latents() -> None:
    art = pytest.importorskip("art.defences.detector.poison.spectral_signature_defense")
    latents = blobs()
    centred = (latents - latents.mean(0)).numpy()  # ART centres for the direction, but not for the score
    theirs = art.SpectralSignatureDefense.spectral_signature_scores(centred)[:, 0]
    assert squared_projection(latents, *top_direction(latents)).numpy() == pytest.approx(theirs**2)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_clusters_are_art_s() -> None:
    defence = pytest.importorskip("art.defences.detector.poison.activation_defence")
    analyzer = pytest.importorskip("art.defences.detector.poison.clustering_analyzer").ClusteringAnalyzer()
    latents = blobs()
    clusters, reduced = defence.cluster_activations([latents.numpy()], nb_clusters=2, nb_dims=10, reduce="PCA")
    _, _, report = analyzer.analyze_by_silhouette_score(clusters, reduced)
    _, members, share, silhouette = two_clusters(latents, 10)
    small = np.bincount(clusters[0], minlength=2).argmin()
    assert members.tolist() == (clusters[0] == small).tolist() == [False] * 45 + [True] * 15
    assert share == 0.25
    assert silhouette == pytest.approx(float(report["class_0"]["avg_silhouette_score"]), abs=1e-4)
    assert report["class_0"]["suspicious"]


def test_clusters_by_hand() -> None:
    latents = torch.tensor([[0.0], [0.0], [0.0], [0.0], [10.0]]).double()
    scores, members, share, silhouette = two_clusters(latents, 10)
    assert members.tolist() == [False] * 4 + [True]
    assert scores.tolist() == pytest.approx([-1, -1, -1, -1, 1])
    assert share == 0.2
    assert silhouette == pytest.approx(0.8)  # 1 for each of the four, 0 for one alone
    assert two_clusters(torch.ones(9, 3).double(), 10)[1:] == (pytest.approx([False] * 9), 0.0, -1.0)


def test_a_class_is_flagged_for_a_small_and_distant_cluster_alone() -> None:
    seen, triggered = inspection(12, Backdoored())
    for changes in ({"size": 0.05}, {"silhouette": 0.99}):
        assert not suspicion("clustering", **changes).inspect(seen).flagged[triggered].any()


def test_entropy_by_closed_form() -> None:
    quarter = torch.tensor([0.25, 0.25, 0.5]).log()
    sure, even = torch.tensor([0.0, -1e4, -1e4]), torch.zeros(3)
    logits = torch.stack([torch.stack([quarter, sure]), torch.stack([even, even])])  # two images, two overlays
    assert mean_entropy(logits).tolist() == pytest.approx([1.5 / 2, log2(3)])


def test_strip_adds_clean_images_and_clips() -> None:
    shown: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x)
            return torch.zeros(len(x), 2)

    x, labels = images(3, seed=0)
    clean, right = images(2, seed=1)
    parts = (Examples(part, its, torch.zeros(len(its), 1).double()) for part, its in ((x, labels), (clean, right)))
    found = suspicion("strip", overlays=50).inspect(Inspection(Watched(), *parts, classes=2, quantile=0.95, seed=0))
    assert found.scores.tolist() == pytest.approx([-1.0] * 3)  # one bit
    assert torch.equal(shown[0], (clean[0] + clean[1]).clamp(0, 1).expand_as(shown[0]))  # never one with itself
    both = [(x[0] + each).clamp(0, 1) for each in clean]
    kinds = [[torch.equal(each, one) for one in both] for each in torch.cat(shown[1:])[:50]]
    assert all(sum(kind) == 1 for kind in kinds)
    assert 10 < sum(kind[0] for kind in kinds) < 40


@pytest.mark.parametrize(
    ("sizes", "index"),
    [
        ([1, 9, 10, 11, 12], 9 / 1.4826),  # median 10, deviations 9, 1, 0, 1, 2
        ([8, 9, 10, 11, 50], 2 / 1.4826),  # the large one does not count
        ([4, 4, 4], 0),
    ],
)
def test_the_anomaly_index_by_hand(sizes: list[float], index: float) -> None:
    assert anomaly_index(torch.tensor(sizes, dtype=torch.float)) == pytest.approx(index, rel=1e-4)


def test_the_recovered_mask_is_the_trigger() -> None:
    seen, _ = inspection(12, Backdoored())
    found = suspicion("neural_cleanse", steps=200).inspect(seen)
    assert found.masks is not None
    assert found.patterns is not None
    assert found.masks.shape == (CLASSES, 5, 4)
    assert found.masks.flatten(1).sum(1).argmin() == 0
    assert found.masks[0].argmax() == 19
    assert found.masks[0].sum() < 1.5
    stamped = (1 - found.masks[0]) * seen.clean.x + found.masks[0] * found.patterns[0]
    assert (seen.network(stamped).argmax(1) == 0).double().mean() >= 0.9
    assert found.anomaly_index == pytest.approx(anomaly_index(found.masks.flatten(1).sum(1)))


@pytest.mark.parametrize(
    ("distance", "holds"), [(6.0, lambda auroc: auroc > 0.95), (0.0, lambda auroc: 0.2 < auroc < 0.8)]
)
def test_a_probe_finds_what_is_there_on_examples_that_it_was_not_fitted_to(
    distance: float, holds: Callable[[float], bool]
) -> None:
    latents = torch.randn(60, 30, generator=torch.Generator().manual_seed(3)).double()
    triggered = torch.arange(60) < 20
    latents[triggered, 5] += distance
    scores = probe_scores(latents, triggered)
    assert scores is not None
    pairs = scores[triggered][:, None] > scores[~triggered][None]
    assert holds(pairs.double().mean().item())
    assert probe_scores(latents, torch.arange(60) < 1) is None
