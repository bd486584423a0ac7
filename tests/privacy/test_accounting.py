"""The accountant against others' figures, closed forms and what must hold for any setting."""

from math import exp, log, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from trustml_cli.privacy.accounting import ORDERS, epsilon, noise_for

DP_ACCOUNTING = [  # noise multiplier, sample rate, steps, delta, and ε by dp-accounting 0.6 at the same orders
    (0.822, 512 / 60000, 936, 1e-5, 2.9276183999580496),
    (0.928, 512 / 60000, 2106, 1e-5, 2.9247952221694185),
    (30, 0.5, 100, 1e-5, 0.6543643895327136),
    (100, 0.01, 10000, 1e-5, 0.032292894250228715),
    (1.1, 1.0, 10, 1e-5, 16.856677599575107),
]


@pytest.mark.parametrize(("noise", "rate", "steps", "delta", "known"), DP_ACCOUNTING)
def test_epsilon_is_dp_accounting_s(noise: float, rate: float, steps: int, delta: float, known: float) -> None:
    assert epsilon(noise, rate, steps, delta) == pytest.approx(known, rel=2e-5)


@pytest.mark.peers
@pytest.mark.parametrize(("noise", "rate", "steps"), [(0.822, 0.0085, 936), (1.23, 0.01, 4000), (5, 0.07, 600)])
def test_epsilon_is_opacus_s(noise: float, rate: float, steps: int) -> None:
    from opacus.accountants.analysis import rdp

    moments = rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=ORDERS)
    theirs, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=moments, delta=1e-5)
    assert epsilon(noise, rate, steps, 1e-5) == pytest.approx(theirs, rel=1e-9)


def test_without_sampling_it_is_an_upper_bound_of_the_gaussian_mechanism_and_close() -> None:
    """δ of one Gaussian step is exact in closed form (Balle and Wang 2018, arXiv 1805.06530)."""
    sigma, reached = 2.0, epsilon(2.0, 1.0, 1, 1e-5)

    def exact(value: float) -> float:
        return norm.cdf(1 / (2 * sigma) - value * sigma) - exp(value) * norm.cdf(-1 / (2 * sigma) - value * sigma)

    assert exact(reached) < 1e-5 < exact(0.75 * reached)
    assert epsilon(2.0 * sqrt(7), 1.0, 7, 1e-5) == pytest.approx(reached)  # seven steps with √7 times the noise


@settings(max_examples=15, deadline=None)
@given(st.floats(0.6, 8), st.floats(0.001, 0.3), st.integers(1, 3000))
def test_more_noise_and_fewer_steps_cost_less(noise: float, rate: float, steps: int) -> None:
    here = epsilon(noise, rate, steps, 1e-5)
    assert 0 <= epsilon(1.2 * noise, rate, steps, 1e-5) <= here
    assert here <= epsilon(noise, rate, 2 * steps, 1e-5)
    assert here <= epsilon(noise, min(1, 2 * rate), steps, 1e-5)


@pytest.mark.parametrize("wanted", [0.3, 3.0, 20.0])
def test_the_noise_that_is_found_is_just_enough(wanted: float) -> None:
    noise = noise_for(wanted, 0.01, 1000, 1e-5)
    assert 0.998 * wanted < epsilon(noise, 0.01, 1000, 1e-5) <= wanted


def test_limits() -> None:
    assert epsilon(1.0, 0.01, 0, 1e-5) == 0
    assert epsilon(0.0, 0.01, 10, 1e-5) == float("inf")
    with pytest.raises(ValueError, match="epsilon: no noise reaches 1e-09 with delta=1e-05"):
        noise_for(1e-9, 0.01, 10, 1e-5)
    assert log(1e5) / (max(ORDERS) - 1) < 0.03  # the smallest ε that the orders can show
