"""Membership figures against scikit-learn, scipy and numbers by hand."""

from math import log

import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from trustml_cli.privacy.measure import Victim, bound_at, clopper_pearson, epsilon_bound, evaluate


def victim(seed: int, shift: float, n: int = 2000, ties: bool = False) -> Victim:
    random = torch.Generator().manual_seed(seed)
    member = torch.rand(n, generator=random) < 0.5
    scores = torch.randn(n, generator=random, dtype=torch.float64) + shift * member
    return Victim(scores.mul(2).round() if ties else scores, member)


@pytest.mark.parametrize("ties", [False, True])
def test_the_figures_are_means_of_scikit_learn_s_over_the_victims(ties: bool) -> None:
    victims = [victim(seed, 1.0, ties=ties) for seed in range(3)]
    result = evaluate(victims, seed=0)
    found: dict[str, list[float]] = {name: [] for name in result.values}
    for each in victims:
        fpr, tpr, _ = roc_curve(each.member, each.scores, drop_intermediate=False)
        found["auc"].append(float(roc_auc_score(each.member, each.scores)))
        found["tpr_at_1_fpr"].append(float(tpr[fpr <= 0.01].max()))
        found["tpr_at_0.1_fpr"].append(float(tpr[fpr <= 0.001].max()))
        found["advantage"].append(float((tpr - fpr).max()))
    for name, values in found.items():
        assert result.values[name] == pytest.approx(sum(values) / 3), name
        low, high = result.intervals[name]
        assert low < result.values[name] < high, name
    assert result.n == 2000
    assert result.fpr[0] == 0
    assert result.tpr[-1] == 1
    assert sorted(result.tpr) == result.tpr


def test_the_number_of_false_positives_that_a_rate_allows_is_said() -> None:
    each = Victim(torch.arange(3000.0).double(), torch.arange(3000) >= 1500)
    result = evaluate([each], seed=0)
    assert result.false_positives == {"tpr_at_1_fpr": 15, "tpr_at_0.1_fpr": 1}
    assert result.values == {"auc": 1, "tpr_at_1_fpr": 1, "tpr_at_0.1_fpr": 1, "advantage": 1}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """The AUC of N(0, 1) against N(1, 1) is Φ(1/√2) = 0.7602."""
    held = [evaluate([victim(seed, 1.0, n=300)], seed=0).intervals["auc"] for seed in range(40)]
    assert sum(low <= 0.7602 <= high for low, high in held) >= 35


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (900, 1000)])
def test_clopper_pearson_is_scipy_s(successes: int, n: int) -> None:
    theirs = binomtest(successes, n).proportion_ci(0.975, method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((theirs.low, theirs.high))


def test_the_bound_of_epsilon_compares_rates_in_both_directions() -> None:
    member = torch.arange(2000) < 1000
    scores = torch.zeros(2000).double()
    scores[:100] = 1  # 100 of 1,000 members and none of the others
    low, high = clopper_pearson(100, 1000)[0], clopper_pearson(0, 1000)[1]
    assert bound_at(Victim(scores, member), 1.0) == pytest.approx(log(low / high))
    assert bound_at(Victim(-scores, ~member), 0.0) == pytest.approx(log(low / high))  # none of the others are left


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_the_bound_stays_below_epsilon_of_randomized_response_and_comes_close(epsilon: float) -> None:
    """A bit that says membership and is right with probability e^ε / (1 + e^ε) is ε-differentially private."""
    random = torch.Generator().manual_seed(1)
    member = torch.rand(20000, generator=random) < 0.5
    right = torch.rand(20000, generator=random) < torch.tensor(epsilon).sigmoid()
    bound = epsilon_bound(Victim((member == right).double(), member))
    assert 0.8 * epsilon < bound <= epsilon
    assert epsilon_bound(Victim(torch.rand(2000, generator=random).double(), member[:2000])) == 0
