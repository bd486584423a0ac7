"""Every attack in conf/inference: one table for all, then each against numbers by hand and closed forms."""

from math import erf, log, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from tests.configs import choice, choices
from trustml_cli.config.instantiate import build
from trustml_cli.privacy.class_loss import best_threshold
from trustml_cli.privacy.inference import Inference, Observations, log_probability, logit_confidence
from trustml_cli.privacy.lira import means, variance
from trustml_cli.privacy.shadow import Shadow
from trustml_cli.privacy.views import MOST, views


def read(name: str, **changes: object) -> Inference:
    built = build(choice("inference", name, **changes), "inference")
    assert isinstance(built, Inference)
    return built


every_attack = pytest.mark.parametrize("name", choices("inference"))


def logits_of(phi: Tensor, labels: Tensor, classes: int = 3) -> Tensor:
    """Logits [..., N, classes] whose logit confidence is phi [..., N], the other classes being equally probable."""
    others = torch.full((*phi.shape, classes), -torch.tensor(classes - 1.0).log().item(), dtype=torch.float64)
    return others.scatter(-1, labels.expand(phi.shape)[..., None], phi[..., None])


def world(references: int, shift: float, n: int = 3000, views_: int = 1) -> tuple[Observations, Tensor]:
    """Networks whose φ is normal around each example's own difficulty, and higher by `shift` for members."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    difficulty = 3 * torch.randn(n, generator=random, dtype=torch.float64)
    inside = torch.rand(1 + references, n, generator=random) < 0.5
    noise = torch.randn(1 + references, views_, n, generator=random, dtype=torch.float64)
    logits = logits_of(difficulty + shift * inside[:, None] + noise, labels)
    return Observations(logits[0], labels, logits[1:], inside[1:]), inside[0]


def auc(attack: Inference, seen: Observations, member: Tensor) -> float:
    return float(roc_auc_score(member, attack.score(seen)))


@every_attack
def test_members_score_higher_and_at_chance_if_training_leaves_no_trace(name: str) -> None:
    attack = read(name)
    for shift, low, high in ((4, 0.7, 1), (0, 0.47, 0.53)):
        seen, member = world(max(6, attack.fewest_references), shift)
        score = attack.score(seen)
        assert (score.shape, score.dtype) == ((3000,), torch.float64)
        assert low < auc(attack, seen, member) < high


@every_attack
def test_scores_are_finite_with_the_fewest_references_and_for_sure_networks(name: str) -> None:
    attack = read(name)
    seen, _ = world(attack.fewest_references, 1, n=60)
    sure = Observations(300 * seen.victim, seen.labels, 300 * seen.references, seen.inside)
    for each in (seen, sure):
        assert attack.score(each).isfinite().all()


@every_attack
def test_more_views_tell_more(name: str) -> None:
    attack = read(name)
    scores = [auc(attack, *world(6, 1.5, views_=number)) for number in (1, 4)]
    assert scores[1] > scores[0] + 0.005


def normal_auc(shift: float) -> float:
    """The AUC of the best test between N(0, 1) and N(shift, 1)."""
    return 0.5 * (1 + erf(shift / 2))


def test_many_references_reach_the_best_test_between_two_normal_distributions() -> None:
    seen, member = world(40, 1.0)
    assert auc(read("loss"), seen, member) < 0.62  # difficulty hides membership
    assert auc(read("lira"), seen, member) == pytest.approx(normal_auc(1.0), abs=0.02)
    assert auc(read("lira_offline"), seen, member) == pytest.approx(normal_auc(1.0), abs=0.02)
    assert 0.7 < auc(read("ratio"), seen, member) < normal_auc(1.0)


def test_the_online_likelihood_ratio_is_that_of_the_fitted_normal_distributions() -> None:
    """Two references with the example (φ 4 and 6, variance 2) and two without (0 and 4, variance 8)."""
    labels, phi = torch.zeros(1, dtype=torch.int64), torch.tensor([4.0, 6.0, 0.0, 4.0]).double()
    seen = Observations(
        logits_of(torch.tensor([[3.5]]).double(), labels), labels, logits_of(phi[:, None, None], labels),
        torch.tensor([[True], [True], [False], [False]]),
    )  # fmt: skip
    # log N(3.5; 5, 2) − log N(3.5; 2, 8), and (3.5 − 2) / √8
    ratio = -(1.5**2) / 4 + 1.5**2 / 16 + log(8 / 2) / 2
    torch.testing.assert_close(read("lira").score(seen), torch.tensor([ratio]).double())
    torch.testing.assert_close(read("lira_offline").score(seen), torch.tensor([1.5 / sqrt(8)]).double())


def test_an_example_without_references_of_one_kind_takes_the_mean_gap() -> None:
    inside = torch.tensor([[True, True, False], [False, True, False]])
    known = torch.tensor([[[5.0, 7.0, 1.0]], [[3.0, 9.0, 3.0]]]).double()
    with_it, without = means(known, inside)
    assert with_it.tolist() == [[5.0, 8.0, 4.0]]  # the gap of the first, 2, is added to 2
    assert without.tolist() == [[3.0, 6.0, 2.0]]
    # one variance for all: (7 − 8)² + (9 − 8)² over the one degree of freedom that is left
    assert variance(known, inside, with_it, own=False).tolist() == [[2.0]]
    assert variance(known, inside, with_it, own=True)[0].tolist() == pytest.approx([1e-6, 2.0, 1e-6])


def test_the_ratio_weighs_references_with_and_without_the_example_equally() -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    probability = torch.tensor([[0.9, 0.5], [0.2, 0.5], [0.4, 0.7]]).double()
    known = torch.stack([probability, 1 - probability], -1).log()[:, None]
    inside = torch.tensor([[True, False], [False, False], [False, False]])
    seen = Observations(torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]).double(), labels, known, inside)
    expected = torch.tensor([0.5 / ((0.9 + 0.3) / 2), 0.5 / ((0.5 + 0.5 + 0.7) / 3)]).double().log()
    torch.testing.assert_close(read("ratio").score(seen), expected)


def test_the_threshold_of_a_class_separates_its_members_best() -> None:
    values = torch.tensor([1, 5, 5, 8, 9]).double()
    assert best_threshold(values, torch.tensor([False, True, False, True, True])).item() == 8
    assert best_threshold(values, torch.ones(5, dtype=torch.bool)).item() == 0
    seen, _ = world(2, 2.0, n=300)
    shifted = read("class_loss").score(seen) - read("loss").score(seen)
    assert all(shifted[seen.labels == number].std() < 1e-12 for number in range(3))  # one threshold for each class


def test_shadow_classifiers_are_scikit_learn_s() -> None:
    seen, _ = world(3, 2.0, n=300)
    attack = read("shadow", weight_decay=0.01)
    assert isinstance(attack, Shadow)
    inputs, own = attack.inputs(seen.references, seen.labels), seen.labels == 1
    theirs, ours = inputs, attack.inputs(seen.victim[None], seen.labels)[0]
    mean, std = theirs.mean((0, 1)), theirs.std((0, 1))
    x, y = ((theirs - mean) / std)[:, own].flatten(0, 1), seen.inside[:, own].flatten()
    peer = LogisticRegression(C=1 / (2 * 0.01 * len(x)), tol=1e-10, max_iter=1000).fit(x.numpy(), y.numpy())
    expected = peer.decision_function(((ours - mean) / std)[own].numpy())
    torch.testing.assert_close(attack.score(seen)[own], torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0.1, 50))
def test_logit_confidence_is_the_log_odds_of_the_label(classes: int, seed: int, scale: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, 5, classes, generator=random, dtype=torch.float64)
    labels = torch.randint(classes, (5,), generator=random)
    log_p = log_probability(logits, labels)
    torch.testing.assert_close(log_p[0], -functional.cross_entropy(logits[0], labels, reduction="none"))
    torch.testing.assert_close(logit_confidence(logits, labels).sigmoid(), log_p.exp())


def test_views_are_the_image_its_mirror_image_and_shifts_by_a_pixel() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    every = list(views(x, MOST))
    assert len({tuple(view.flatten().tolist()) for view in every}) == MOST
    assert torch.equal(every[0], x)
    assert every[1][0, 0, 0].tolist() == [2, 1, 0]
    assert every[2][0, 0].tolist() == [[0, 0, 1], [3, 3, 4], [6, 6, 7]]  # to the right, the edge repeated
    assert torch.equal(next(iter(views(torch.ones(2, 7), 1))), torch.ones(2, 7))
