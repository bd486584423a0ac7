"""The accountant by the privacy loss distribution against closed forms and two others' figures."""

from math import exp, sqrt
from typing import Any

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from tests.configs import composed
from trustml_cli.config.instantiate import build
from trustml_cli.privacy import accounting
from trustml_cli.privacy.loss_distribution import LEAST_DELTA, epsilon

DP_ACCOUNTING = [
    # noise multiplier, sample rate, steps, delta, and ε by dp-accounting 0.6, from_gaussian_mechanism(…,
    # value_discretization_interval=1e-5, or 1e-4 in the last two, use_connect_dots=True).self_compose(steps)
    (0.822, 512 / 60000, 936, 1e-5, 2.4186678114251442),
    (6.65, 4096 / 60000, 560, 1e-5, 0.9131435965099156),
    (0.5, 0.01, 200, 1e-6, 9.310730015028735),
    (1.1, 1.0, 10, 1e-5, 15.782719526855326),
]


@pytest.mark.parametrize(("noise", "rate", "steps", "delta", "known"), DP_ACCOUNTING)
def test_epsilon_is_dp_accounting_s_to_five_digits(
    noise: float, rate: float, steps: int, delta: float, known: float
) -> None:
    assert epsilon(noise, rate, steps, delta) == pytest.approx(known, rel=5e-6)


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (2.0, 7), (0.2, 1), (30.0, 100)])
def test_without_sampling_it_is_that_of_the_gaussian_mechanism_and_not_below(noise: float, steps: int) -> None:
    """δ of Gaussian steps is exact in closed form (Balle and Wang 2018, arXiv 1805.06530)."""
    one = noise / sqrt(steps)

    def beyond(value: float) -> float:
        at_least = norm.cdf(1 / (2 * one) - value * one)
        return float(at_least - exp(value + norm.logcdf(-1 / (2 * one) - value * one)) - 1e-5)

    exact = brentq(beyond, 0, 100, xtol=1e-12)
    assert exact <= epsilon(noise, 1.0, steps, 1e-5) <= exact * (1 + 3e-6)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_epsilon_is_opacus_s() -> None:
    from opacus.accountants import PRVAccountant

    theirs: Any = PRVAccountant()
    theirs.history = [(1.1, 0.01, 100)]
    expected = theirs.get_epsilon(1e-5, eps_error=2e-3)  # an upper bound
    assert expected - 4e-3 < epsilon(1.1, 0.01, 100, 1e-5) <= expected


@pytest.mark.parametrize(("noise", "rate", "steps"), [(0.3, 0.01, 50), (100, 0.01, 10_000), (5.0, 0.3, 100)])
def test_it_is_below_that_by_renyi_orders(noise: float, rate: float, steps: int) -> None:
    tight, loose = (each(noise, rate, steps, 1e-5) for each in (epsilon, accounting.epsilon))
    assert 0.5 * loose < tight < loose


def test_limits() -> None:
    assert epsilon(1.0, 0.01, 0, 1e-5) == 0
    assert epsilon(0.0, 0.01, 10, 1e-5) == float("inf")
    assert epsilon(1e6, 0.01, 10, 1e-5) == 0
    with pytest.raises(ValueError, match="delta: accounting by PLD needs at least 1e-10"):
        epsilon(1.0, 0.01, 10, LEAST_DELTA / 2)
    with pytest.raises(ValueError, match=r"noise_multiplier: accounting by PLD needs at least 0\.05"):
        epsilon(0.04, 0.01, 10, 1e-5)
    assert 500 < epsilon(0.05, 0.01, 10, 1e-5) < accounting.epsilon(0.05, 0.01, 10, 1e-5)


def test_the_trainer_takes_the_accountant_that_is_named_and_says_which() -> None:
    rows = []
    for name in ("rdp", "pld"):
        keys = {"epochs": 1, "batch_size": 64, "accountant": name}
        trainer: Any = build(
            composed("trainer=dp_sgd", *(f"trainer.{key}={value}" for key, value in keys.items())).trainer, "trainer"
        )
        rows.append(trainer.columns(300, ()))
        assert any(f"by {name.upper()}" in figure for _, _, figure in trainer.checks(300))
    assert [row["accountant"] for row in rows] == ["rdp", "pld"]
    assert all(2.99 < row["epsilon"] <= 3 for row in rows)
    assert rows[1]["noise_multiplier"] < 0.97 * rows[0]["noise_multiplier"]
