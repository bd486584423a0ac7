"""PATE's aggregator and its privacy cost, against the authors' analysis (tensorflow/privacy, research/pate_2018)."""

from math import log

import numpy as np
import pytest
import torch
from scipy.stats import norm

from trustml_cli.privacy.accounting import ORDERS
from trustml_cli.privacy.pate import ALPHAS, ConfidentGnmax, epsilon, log1mexp, log_other, noisy_max_rdp
from trustml_cli.privacy.pate_release import (
    BETA,
    NoisyMaximum,
    release_rdp,
    released,
    smooth_sensitivity,
    threshold_at_distances,
)

VOTES = np.array(
    [
        [250, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [240, 4, 3, 1, 1, 1, 0, 0, 0, 0],
        [210, 30, 5, 5, 0, 0, 0, 0, 0, 0],
        [130, 60, 30, 10, 5, 5, 4, 3, 2, 1],
        [60, 50, 40, 30, 20, 20, 10, 10, 5, 5],
    ],
    dtype=float,
)
RDP = [  # of each of VOTES at the orders 2, 8 and 20 (core.py): expected costs with threshold 200, noise 150 and 40
    [5.407532793115552e-05, 0.00019076043407788927, 0.00047799847434489023],
    [6.597038154516557e-05, 0.0002063223520895151, 0.0005135944084668659],
    [0.0002772565082099611, 0.0004701604469366506, 0.0010184903335690985],
    [0.0004449059330710325, 0.00177962373228413, 0.004449059330710325],
    [0.00026359937550973127, 0.001054397502038925, 0.002635993755097313],
]
LOCAL = [  # local sensitivity at order 8 (smooth_sensitivity.py): of the maximum with noise 30 and of the threshold 200
    # with noise 50, at distance 0 and 30
    (6.4138026663104444e-09, 9.815901163721992e-07, 0.0, 0.0),
    (2.6705588440754218e-08, 3.542369209484384e-06, 0.0, 0.0),
    (2.6954495095588685e-06, 0.00019404376153015954, 0.0, 0.0),
    (0.0, 0.0009734745232093545, 0.0, 0.0),
    (0.0, 0.0, 2.3460158547070162e-05, 4.483031204224186e-06),
]
PAPER = ConfidentGnmax(threshold=200, sigma1=150, sigma2=40)
OTHER = ConfidentGnmax(threshold=200, sigma1=50, sigma2=30)
ALL = np.ones(len(VOTES))


def seeded(seed: int) -> object:
    random = torch.Generator().manual_seed(seed)
    return lambda count: torch.randn(count, generator=random, dtype=torch.float64)


def test_the_cost_of_each_query_is_that_of_the_authors_analysis() -> None:
    found = PAPER.rdp(VOTES, np.exp(PAPER.log_answered(VOTES.max(1))))
    places = [ORDERS.index(order) for order in (2, 8, 20)]
    np.testing.assert_allclose(found[:, places], RDP, rtol=1e-10, atol=0)


def test_what_is_known_without_the_votes_is_never_less() -> None:
    worst = PAPER.worst_rdp(len(VOTES), 3)
    answered = np.array([1.0, 1, 1, 0, 0])
    assert (PAPER.rdp(VOTES, answered).sum(0) <= worst * (1 + 1e-12)).all()
    np.testing.assert_allclose(worst, ALPHAS * (5 / (2 * 150**2) + 3 / 40**2))  # propositions 8, by hand
    closed = 300 * (1 / (2 * 150**2) + 1 / 40**2)  # of 300 queries, all answered, by the older conversion
    classic = closed + 2 * np.sqrt(closed * log(1e5))
    assert 0.8 * classic < epsilon(PAPER.worst_rdp(300, 300), 1e-5) < classic


def test_votes_that_agree_cost_next_to_nothing_and_votes_that_do_not_cost_the_most() -> None:
    costs = epsilon(OTHER.rdp(VOTES, ALL) * 1000, 1e-5)
    assert costs[0] < costs[1] < costs[2] < costs[3]
    assert costs[4] <= epsilon(OTHER.worst_rdp(1000, 1000), 1e-5)
    assert noisy_max_rdp(np.array([-np.inf]), 3.0).max() == 0  # an outcome that is certain


def test_the_bound_of_another_outcome_holds_and_is_close() -> None:
    votes, sigma = np.array([[30.0, 10, 5, 5]]), 12.0
    random = np.random.default_rng(0)
    often = (votes[0] + sigma * random.standard_normal((200_000, 4))).argmax(1)
    bound = float(np.exp(log_other(votes, sigma)[0]))
    assert (often != 0).mean() < bound < 1.4 * (often != 0).mean()
    assert float(np.exp(log_other(np.array([[5.0, 5, 5]]), 1e9))[0]) == pytest.approx(2 / 3)
    assert float(np.exp(OTHER.log_answered(np.array([230.0])))[0]) == pytest.approx(norm.cdf(30 / 50))
    assert log1mexp(np.array([-1e-9, -40.0])).tolist() == pytest.approx([log(1e-9), -4.248354255291589e-18])


def test_queries_are_answered_with_the_noisy_top_class_where_its_count_reaches_the_threshold() -> None:
    votes = torch.from_numpy(VOTES).long()
    silent = lambda count: torch.zeros(count, dtype=torch.float64)  # noqa: E731
    assert PAPER.answers(votes[:, [1, 0, *range(2, 10)]], silent, 9).tolist() == [1, 1, 1, -1, -1]
    assert PAPER.answers(votes, silent, 2).tolist() == [0, 0]  # nothing is asked after the last answer
    many = votes[2].repeat(4000, 1)
    answers = OTHER.answers(many, seeded(0), 4000)  # type: ignore[arg-type]
    assert (answers >= 0).double().mean().item() == pytest.approx(norm.cdf(10 / 50), abs=0.03)
    tied = OTHER.answers(torch.tensor([[250, 240, 0]]).repeat(4000, 1), seeded(1), 4000)  # type: ignore[arg-type]
    wrong = (tied[tied >= 0] == 1).double().mean().item()
    assert wrong == pytest.approx(norm.cdf(-10 / (30 * 2**0.5)), abs=0.03)


def test_sensitivities_are_those_of_the_authors_analysis() -> None:
    maximum = NoisyMaximum.of(30, 8, 10)
    assert maximum.log_q0 == pytest.approx(-3.621917026301973, rel=1e-10)
    mine, first = maximum.at_distances(VOTES), threshold_at_distances(OTHER, VOTES.max(1), 250, 8)
    found = np.stack([mine[:, 0], mine[:, 30], first[:, 0], first[:, 30]], 1)
    np.testing.assert_allclose(found, LOCAL, rtol=1e-7, atol=1e-15)
    assert BETA == 0.4
    assert smooth_sensitivity(OTHER, VOTES, ALL, 8) == pytest.approx(0.0006211993274566208, rel=1e-9)
    assert release_rdp(0.05, 10, 8) == pytest.approx(0.26051638147705897, rel=1e-12)
    with pytest.raises(ValueError, match="order"):
        release_rdp(0.05, 10, 11)


def test_the_cost_is_released_with_its_noise_and_what_the_release_costs() -> None:
    def at(noise: float) -> float:
        got = released(OTHER, VOTES, ALL, 1e-5, 8, 10, lambda _: torch.tensor([noise]))
        assert got is not None
        return got

    exact, converted = 0.02459915623711602, -log(1e-5 * 8) / 7 + log(7 / 8)
    assert at(0.0) == pytest.approx(exact + 0.26051638147705897 + converted)
    assert at(1.0) - at(0.0) == pytest.approx(10 * 0.0006211993274566208)
    assert at(-1e9) == pytest.approx(0.26051638147705897 + converted)


def test_nothing_is_released_where_the_sensitivity_is_not_proved() -> None:
    assert NoisyMaximum.of(30, 8, 10).monotonic()
    assert not NoisyMaximum.of(8, 20, 10).monotonic()
    narrow = ConfidentGnmax(threshold=200, sigma1=50, sigma2=8)
    assert released(narrow, VOTES, ALL, 1e-5, 20, 10, lambda _: torch.zeros(1)) is None
