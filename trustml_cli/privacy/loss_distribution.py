"""Privacy accounting of DP-SGD by the distribution of the privacy loss (PLD), tighter than that by Rényi orders.

Sommer, Meiser and Mohammadi 2019 (doi 10.2478/popets-2019-0029); discretised by the method of Doroshenko, Ghazi,
Kamath, Kumar and Manurangsi 2022, "Connect the dots", arXiv 2207.04380. Neighbouring data sets differ by one example
more or less.
"""

from math import ceil, expm1, floor, inf, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from trustml_cli.privacy.accounting import log_sum

FINENESS = 0.003  # width of a grid step in standard deviations of the loss of one step
MOST_POINTS = 2**21  # of the grid of one step; a wider one has wider steps
TAIL = 1e-7  # of delta: probability that is counted as if the loss were infinite there
LEAST_NOISE = 0.05  # below, probabilities on the grid are smaller than the smallest float
LEAST_DELTA = 1e-10  # below, rounding of the Fourier transform is no longer small

Floats = NDArray[np.float64]


def epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """ε of (ε, δ)-differential privacy after `steps` steps of the Poisson-sampled Gaussian; inf without noise.

    The arguments are those of `accounting.epsilon`. The result is an upper bound but for rounding, to about five
    digits. Raises ValueError for a `delta` below 1e-10 or a noise multiplier below 0.05.
    """
    if delta < LEAST_DELTA:
        raise ValueError(f"delta: accounting by PLD needs at least {LEAST_DELTA:g}, got {delta:g}; use accountant=rdp")
    if steps == 0 or sample_rate == 0:
        return 0.0
    if noise_multiplier == 0:
        return inf
    if noise_multiplier < LEAST_NOISE:
        raise ValueError(f"noise_multiplier: accounting by PLD needs at least {LEAST_NOISE:g}; use accountant=rdp")
    losses, with_it, without = one_step(noise_multiplier, sample_rate, TAIL * delta / steps)
    beyond = max(0.0, 1 - with_it.sum())  # one example more has an infinite loss with this probability
    removed = after(losses, with_it, steps, delta, 1 - (1 - beyond) ** steps)
    without[-1] += max(0.0, 1 - without.sum())  # the other way round it is finite
    return max(removed, after(-losses[::-1], without[::-1], steps, delta, 0.0))


def one_step(sigma: float, q: float, tail: float) -> tuple[Floats, Floats, Floats]:
    """A grid of privacy losses L [M], and their probabilities [M] with an example in the data set and without it.

    L(x) = log(1 − q + q exp((2x − 1)/2σ²)) is the loss at a sum x of N(0, σ²) without the example, and of
    (1 − q) N(0, σ²) + q N(1, σ²) with it. What lies between two points of the grid is shared between them so that both
    probabilities are kept, which gives an upper bound of every δ(ε). Up to `tail` lies beyond the grid.
    """
    from scipy.special import ndtr, ndtri

    far = 1 - sigma * float(ndtri(tail))
    x = np.linspace(-far, far, 20_001)
    middle = loss(x, sigma, q)
    weights = (1 - q) * np.exp(-(x**2) / (2 * sigma**2)) + q * np.exp(-((x - 1) ** 2) / (2 * sigma**2))
    deviation = float(np.sqrt(np.cov(middle, aweights=weights)))
    bottom, top = float(middle[0]) if q == 1 else log1p(-q), float(middle[-1])
    width = max(FINENESS * deviation, (top - bottom) / MOST_POINTS)
    losses = np.arange(floor(bottom / width), ceil(top / width) + 1, dtype=np.float64) * width

    inside = np.expm1(losses) + q  # q times the ratio of the two densities
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(inside > 0, sigma**2 * np.log(np.maximum(inside, 0) / q) + 0.5, -np.inf)

    def between(mean: float) -> Floats:
        """Probability of N(mean, σ²) between neighbouring points, from the nearer tail."""
        z = (x - mean) / sigma
        found: Floats = np.where(z[:-1] > 0, ndtr(-z[:-1]) - ndtr(-z[1:]), ndtr(z[1:]) - ndtr(z[:-1]))
        return found

    without = between(0.0)
    with_it = (1 - q) * without + q * between(1.0)
    upper = np.clip((with_it - np.exp(losses[:-1]) * without) / -expm1(-width), 0, with_it)
    masses: Floats = np.append(with_it - upper, 0.0)
    masses[1:] += upper
    others: Floats = masses * np.exp(-losses)
    return losses, masses, others


def loss(x: Floats, sigma: float, q: float) -> Floats:
    """The privacy loss at x."""
    ratio = (2 * x - 1) / (2 * sigma**2)
    values: Floats = ratio if q == 1 else np.logaddexp(log1p(-q), log(q) + ratio)
    return values


def after(losses: Floats, masses: Floats, steps: int, delta: float, infinite: float) -> float:
    """The smallest ε with δ(ε) at most `delta` for the sum of `steps` losses; `infinite` is added to δ.

    The sum's distribution is found by a Fourier transform over a window that it leaves with a small probability.
    """
    width = losses[1] - losses[0]
    first = round(losses[0] / width)
    low, high = window(losses, masses, steps, log(TAIL * delta))
    count = ceil((high - low) / width) + 1
    folded = np.bincount((np.arange(len(masses)) + first) % count, weights=masses, minlength=count)
    composed = np.maximum(np.fft.irfft(np.fft.rfft(folded) ** steps, count), 0)
    place = np.floor(low / width) + np.arange(count)
    composed = composed[place.astype(np.int64) % count]
    sums = width * place

    rest = delta - infinite - TAIL * delta

    def spent(place: int) -> float:
        """δ at ε = sums[place]."""
        return float(-(composed[place + 1 :] * np.expm1(sums[place] - sums[place + 1 :])).sum())

    over, under = 0, len(sums) - 1  # δ falls from the first place to the last, where it is 0
    if spent(over) <= rest:
        return max(0.0, float(sums[over]))
    while under - over > 1:
        middle = (over + under) // 2
        over, under = (middle, under) if spent(middle) > rest else (over, middle)
    above = composed[under:]  # of sums above ε, which lies between the two places: δ = Σ p − e^ε Σ p e^−s
    scaled = float((above * np.exp(sums[over] - sums[under:])).sum())
    return max(0.0, float(sums[over]) + log((float(above.sum()) - rest) / scaled))


def window(losses: Floats, masses: Floats, steps: int, log_tail: float) -> tuple[float, float]:
    """Limits that the sum of `steps` losses leaves with at most e^`log_tail` on either side (Chernoff's bound)."""
    some = masses > 0
    losses, logs = losses[some], np.log(masses[some])
    deviation = float(np.sqrt(np.cov(losses, aweights=masses[some])))
    scales = np.geomspace(0.001, 100, 100) * sqrt(-2 * log_tail / steps) / deviation
    below, above = (
        min((steps * log_sum(logs + sign * scale * losses) - log_tail) / scale for scale in scales) for sign in (-1, 1)
    )
    return -below, above
