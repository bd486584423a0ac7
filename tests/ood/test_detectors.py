"""Every detector in conf/detector: one table for all, then each against numbers by hand and against peers."""

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional

from tests.configs import choice, choices, composed
from tests.ood.conftest import World
from trustml_cli.config.instantiate import build
from trustml_cli.models.features import logits_from
from trustml_cli.ood.ash import shaped
from trustml_cli.ood.detector import Detector
from trustml_cli.ood.energy import energy_score
from trustml_cli.ood.gradnorm import gradient_norm_score
from trustml_cli.ood.kl_matching import kl_matching_score, typical_outputs
from trustml_cli.ood.knn import nearest_neighbour_score
from trustml_cli.ood.mahalanobis import class_gaussians, mahalanobis_score
from trustml_cli.ood.max_logit import max_logit_score
from trustml_cli.ood.msp import max_softmax_score
from trustml_cli.ood.odin import odin_score
from trustml_cli.ood.react import rectified_score
from trustml_cli.ood.separation import separation
from trustml_cli.ood.vim import residual_space, virtual_logit_score
from trustml_cli.system.errors import InputError


def read(name: str, **changes: object) -> Detector:
    built = build(choice("detector", name, **changes), "detector")
    assert isinstance(built, Detector)
    return built


every_detector = pytest.mark.parametrize("name", choices("detector"))


@every_detector
def test_images_unlike_the_training_images_score_higher(name: str, world: World) -> None:
    detector = read(name)
    learned = world.fit(detector)
    inliers, outliers = (world.score(detector, x, learned) for x in (world.inliers, world.outliers))
    assert (inliers.shape, inliers.dtype, inliers.device.type) == ((60,), torch.float64, "cpu")
    assert outliers.min() > inliers.max()
    assert separation(inliers, outliers).auroc == 1
    assert detector.learns == bool(learned)


@every_detector
def test_each_image_is_scored_alone(name: str, world: World) -> None:
    detector = read(name)
    learned = world.fit(detector)
    together = world.score(detector, world.outliers, learned)
    for i in (0, 7):
        alone = world.score(detector, world.outliers[i : i + 1], learned)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-6)


def test_the_task_offers_every_detector() -> None:
    assert sorted(composed("task=ood").detector) == choices("detector")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("energy", "temperature", 0),
        ("odin", "temperature", -1),
        ("odin", "epsilon", -0.1),
        ("knn", "k", 0),
        ("vim", "principal", 1),
        ("react", "quantile", 0),
        ("ash", "pruned", 1),
        ("gradnorm", "temperature", 0),
    ],
)
def test_values_out_of_range_are_refused(name: str, key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^detector\.{key}: must be (above|at least|below) [01]"):
        build(OmegaConf.merge(choice("detector", name), {key: value}), "detector")


def test_more_neighbours_than_training_images_are_refused() -> None:
    read("knn", k=10).check(10)
    with pytest.raises(ValueError, match=r"^k: must be at most 9"):
        read("knn", k=10).check(9)


def test_scores_of_logits_worked_out_by_hand() -> None:
    logits = torch.tensor([[0.0, log(3)], [5.0, 5.0]])
    torch.testing.assert_close(max_softmax_score(logits), torch.tensor([-0.75, -0.5]).double())
    torch.testing.assert_close(max_logit_score(logits), torch.tensor([-log(3), -5.0]).double())
    torch.testing.assert_close(energy_score(logits, 1.0), torch.tensor([-log(4), -5 - log(2)]).double())
    hot = -2 * log(1 + sqrt(3))  # exp(log(3) / 2) is the root of 3
    torch.testing.assert_close(energy_score(logits, 2.0), torch.tensor([hot, -5 - 2 * log(2)]).double())


def test_answers_that_the_network_is_very_sure_of_are_not_tied() -> None:
    scores = max_softmax_score(torch.tensor([[30.0, 0.0], [25.0, 0.0]]))
    assert scores[0] < scores[1]


def test_odin_without_step_at_temperature_1_is_the_softmax_and_with_it_is_surer(world: World) -> None:
    x = world.outliers
    torch.testing.assert_close(odin_score(world.network, x, 1.0, 0.0), max_softmax_score(world.network(x)))
    # on a linear network the step raises the answer's logit by 2·4·ε and lowers the others as much
    logits = world.network(x)
    answer = functional.one_hot(logits.argmax(1), 3)
    torch.testing.assert_close(
        odin_score(world.network, x, 1.0, 0.01), max_softmax_score(logits + 0.08 * (2 * answer - 1)), rtol=0, atol=1e-6
    )


def test_new_scores_worked_out_by_hand() -> None:
    head = torch.nn.Linear(2, 2)
    head.weight.data, head.bias.data = torch.eye(2), torch.tensor([1.0, 0.0])  # the origin of ViM is (−1, 0)
    training = torch.tensor([[9.0, 1.0], [9.0, -1.0]])
    space = residual_space(training, torch.tensor([[6.0, 0.0], [4.0, 0.0]]), head, 1)
    assert space["origin"].tolist() == [-1, 0]
    assert space["residual"].abs().tolist() == [[0], [1]]  # the second feature varies less around the origin
    assert space["scale"] == 5  # of a mean largest logit of 5 and a mean distance of 1
    x = torch.tensor([[3.0, -2.0]])
    torch.testing.assert_close(virtual_logit_score(x, torch.zeros(1, 2), space), torch.tensor([10 - log(2)]).double())
    torch.testing.assert_close(
        rectified_score(torch.tensor([[9.0, 1.0]]), head, 2.0), energy_score(torch.tensor([[3.0, 1.0]]), 1.0)
    )
    sparse = shaped(torch.tensor([[4.0, 1, 2, 1], [0.0, 0, 0, 0]]), 0.5)
    torch.testing.assert_close(sparse, torch.tensor([[4.0, 0, 2, 0], [0.0, 0, 0, 0]]) * exp(8 / 6))
    features, logits = torch.tensor([[3.0, -1.0]]), torch.tensor([[log(3), 0.0]])  # ‖(1/4, −1/4)‖₁ · ‖(3, −1)‖₁
    torch.testing.assert_close(gradient_norm_score(logits, features, 1.0), torch.tensor([-2.0]).double())
    typical = typical_outputs(torch.tensor([[log(3), 0.0], [log(9), 0.0], [0.0, log(3)]]))
    torch.testing.assert_close(typical, torch.tensor([[0.825, 0.175], [0.25, 0.75]]).double())
    expected = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)
    torch.testing.assert_close(kl_matching_score(torch.zeros(1, 2), typical), torch.tensor([expected]).double())


def test_typical_outputs_are_those_of_validation_images(world: World) -> None:
    learned = world.fit(read("kl_matching"))
    torch.testing.assert_close(learned["typical"], typical_outputs(world.network(world.validation)))


def test_mahalanobis_worked_out_by_hand() -> None:
    features = torch.tensor([[0.0, 0], [2, 0], [0, 10], [2, 10], [1, 9], [1, 11], [1, 1], [1, -1]])
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 0, 0])
    means, whitening = class_gaussians(features, labels)
    assert means.tolist() == [[1, 0], [1, 10]]
    torch.testing.assert_close(whitening @ whitening.T, 2 * torch.eye(2).double())  # both variances are 1/2
    scores = mahalanobis_score(torch.tensor([[1.0, 0], [1, 4], [4, 10]]), means, whitening)
    torch.testing.assert_close(scores, torch.tensor([0.0, 32, 18]).double())


def test_what_never_varies_in_training_is_not_counted() -> None:
    features = torch.tensor([[0.0, 7], [2, 7], [4, 7], [6, 7]])
    means, whitening = class_gaussians(features, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(
        mahalanobis_score(torch.tensor([[2.0, 7], [2, 8]]), means, whitening), torch.tensor([1.0, 1.0]).double()
    )


def test_nearest_neighbours_worked_out_by_hand() -> None:
    references = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    features = torch.tensor([[5.0, 0], [0, -3]])  # only their directions count
    expected = {1: [0, sqrt(2)], 2: [sqrt(2), sqrt(2)], 3: [2, 2]}
    for k, distances in expected.items():
        torch.testing.assert_close(
            nearest_neighbour_score(features, references, k), torch.tensor(distances).double(), atol=1e-6, rtol=0
        )


def random_features(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) * torch.arange(1, 7)


def test_distances_equal_those_of_scikit_learn() -> None:
    from sklearn.covariance import EmpiricalCovariance
    from sklearn.neighbors import NearestNeighbors

    training, labels, asked = random_features(90, 1), torch.arange(90) % 3, random_features(20, 2)
    by_class = [training[labels == k].double().numpy() for k in range(3)]
    shared = EmpiricalCovariance(assume_centered=True).fit(np.concatenate([part - part.mean(0) for part in by_class]))
    distances = [shared.mahalanobis(asked.double().numpy() - part.mean(0)) for part in by_class]
    np.testing.assert_allclose(mahalanobis_score(asked, *class_gaussians(training, labels)), np.min(distances, axis=0))

    unit = {"training": functional.normalize(training), "asked": functional.normalize(asked)}
    neighbours, _ = NearestNeighbors(n_neighbors=5).fit(unit["training"].numpy()).kneighbors(unit["asked"].numpy())
    ours = nearest_neighbour_score(asked, unit["training"], 5)
    np.testing.assert_allclose(ours, neighbours[:, -1], rtol=1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_scores_equal_those_of_pytorch_ood(world: World) -> None:
    from pytorch_ood import detector as peer

    logits, x = 9 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), world.outliers
    pairs = [
        (max_softmax_score(logits), peer.MaxSoftmax(None).predict_logits(logits)),
        (max_logit_score(logits), peer.MaxLogit(None).predict_logits(logits)),
        (energy_score(logits, 1.5), peer.EnergyBased(None, t=1.5).predict_logits(logits)),
        (odin_score(world.network, x, 20.0, 0.02), peer.ODIN(world.network, eps=0.02, temperature=20.0).predict(x)),
    ]
    training, labels, asked = random_features(90, 1), torch.arange(90) % 3, random_features(20, 2)
    theirs = peer.Mahalanobis(None).fit_features(training, labels).predict_features(asked)
    # half the squared distance, under a covariance that is not divided by the number of images
    pairs.append((mahalanobis_score(asked, *class_gaussians(training, labels)), 2 * 90 * theirs))
    theirs = peer.KNN(None, k=7).fit_features(training, labels).predict_features(asked)
    pairs.append((nearest_neighbour_score(asked, functional.normalize(training), 7), theirs))
    theirs = peer.GradNorm(world.network, lambda name: name == "2.weight", temperature=2.0).predict(x)
    pairs.append((gradient_norm_score(world.network(x), x.flatten(1), 2.0), theirs))
    theirs = peer.KLMatching(None).fit_logits(logits / 9).predict_logits(logits[:9] / 3)
    pairs.append((kl_matching_score(logits[:9] / 3, typical_outputs(logits / 9)), theirs))
    training, asked = training.abs(), asked.abs()
    head = torch.nn.Linear(6, 3).requires_grad_(False)
    theirs = peer.ViM(None, 2, head.weight, head.bias).fit_features(training, labels).predict_features(asked)
    pairs.append((virtual_logit_score(asked, head(asked), residual_space(training, head(training), head, 2)), theirs))
    clipped = peer.ReAct(torch.nn.Identity(), head, percentile=0.8).fit_feature_maps(training, labels)
    limit = float(np.quantile(training, 0.8))
    pairs.append((rectified_score(asked, head, limit), clipped.predict_feature_maps(asked)))
    maps = peer.ASH(None, lambda maps: head(maps.flatten(1)), percentile=0.5).predict_feature_maps(
        asked[:, :, None, None]
    )
    pairs.append((energy_score(logits_from(head, shaped(asked, 0.5)), 1.0), maps))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs.double(), rtol=1e-4, atol=1e-6)
